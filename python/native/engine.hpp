// Engines for Python, and what is asked of one beside the operators. A capsule holds an engine.
#pragma once

#include "arguments.hpp"

#include <smlora/smlora.h>

namespace smlora::python {

/// Throws PythonError if that is no engine.
[[nodiscard]] smlora_engine* engine_of(PyObject* capsule);

/// (backend: int, device: int, shipped_layer: str, threads: int) -> capsule
PyObject* engine(Arguments arguments);

/// (folders: list[str]) -> None
PyObject* set_nvrtc_folders(Arguments arguments);

/// () -> str, JSON
PyObject* system_info(Arguments arguments);

/// (engine) -> str, JSON
PyObject* cache_stats(Arguments arguments);

/// (engine) -> None
PyObject* count_use(Arguments arguments);

/// (problem: list) -> None
PyObject* check_problem(Arguments arguments);

/// (engine, problems: list[list[int]], tokens: list[int]) -> str, JSON
PyObject* prewarm(Arguments arguments);

/// (engine, problem: list[int], tokens: list[int], seconds: float, memory_bytes: int, candidates: int, rounds: int,
///  skew: int, again: int, progress) -> str, JSON
PyObject* tune(Arguments arguments);

}  // namespace smlora::python
