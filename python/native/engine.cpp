#include "engine.hpp"

#include <string>
#include <vector>

namespace smlora::python {
namespace {

constexpr const char* engine_name = "smlora.engine";

void destroy_engine(PyObject* capsule) {
    smlora_engine_destroy(static_cast<smlora_engine*>(PyCapsule_GetPointer(capsule, engine_name)));
}

std::vector<const char*> pointers_to(const std::vector<std::string>& strings) {
    std::vector<const char*> pointers;
    for (const std::string& text : strings) pointers.push_back(text.c_str());
    return pointers;
}

/// Takes over a string of the library's.
PyObject* text_of(char* text) {
    PyObject* result = PyUnicode_FromString(text);
    smlora_free_string(text);
    return result;
}

/// Of a list of numbers: that of an encoding alone, whose usual format is meant, or it and the fields below.
smlora_weight_format format_of(PyObject* fields) {
    const std::vector<PyObject*> items = items_of(fields);
    Arguments arguments(items.data(), static_cast<Py_ssize_t>(items.size()));
    smlora_weight_format format;
    check(smlora_usual_format(static_cast<smlora_encoding>(arguments.integer()), &format));
    if (items.size() == 1) return format;
    format.scales = static_cast<smlora_dtype>(arguments.integer());
    format.block = arguments.integer();
    format.parts = arguments.integer();
    format.outer_block = arguments.integer();
    format.global_scale = static_cast<smlora_global_scale>(arguments.integer());
    format.arranged = static_cast<int32_t>(arguments.integer());
    arguments.end();
    return format;
}

/// Of a list of numbers and a format, in the order of the fields below.
smlora_problem problem_of(PyObject* fields) {
    const std::vector<PyObject*> numbers = items_of(fields);
    Arguments arguments(numbers.data(), static_cast<Py_ssize_t>(numbers.size()));
    smlora_problem problem;
    smlora_problem_init(&problem, sizeof problem);
    problem.E = arguments.integer();
    problem.K = arguments.integer();
    problem.N = arguments.integer();
    problem.R = arguments.integer();
    problem.top_k = arguments.integer();
    problem.dtype = static_cast<smlora_dtype>(arguments.integer());
    problem.adapter_dtype = static_cast<smlora_dtype>(arguments.integer());
    problem.gate_dtype = static_cast<smlora_dtype>(arguments.integer());
    problem.index_dtype = static_cast<smlora_dtype>(arguments.integer());
    problem.weight_layout = static_cast<smlora_weight_layout>(arguments.integer());
    problem.x_rows = static_cast<smlora_row_order>(arguments.integer());
    problem.y_rows = static_cast<smlora_row_order>(arguments.integer());
    problem.bias = static_cast<int32_t>(arguments.integer());
    problem.gates = static_cast<int32_t>(arguments.integer());
    problem.weights = format_of(arguments.next());
    arguments.end();
    return problem;
}

/// Of a list of numbers in the order of the fields below.
smlora_prewarm_activation activation_of(PyObject* fields) {
    const std::vector<PyObject*> numbers = items_of(fields);
    Arguments arguments(numbers.data(), static_cast<Py_ssize_t>(numbers.size()));
    smlora_prewarm_activation activation{};
    activation.activation = static_cast<smlora_activation_kind>(arguments.integer());
    activation.layout = static_cast<smlora_gate_layout>(arguments.integer());
    activation.width = arguments.integer();
    activation.dtype = static_cast<smlora_dtype>(arguments.integer());
    arguments.end();
    return activation;
}

/// Passes what tune() tells to a Python callable, or None, and keeps the exception that it ends with.
class TuneListener {
 public:
    explicit TuneListener(PyObject* progress) : progress_(progress) {}

    /// Called without the GIL, on any thread. Not 0 stops.
    static int32_t hear(const smlora_tune_progress* p, void* self) {
        const PyGILState_STATE state = PyGILState_Ensure();
        const int32_t stop = static_cast<TuneListener*>(self)->hear(*p);
        PyGILState_Release(state);
        return stop;
    }

    /// Throws PythonError with what `progress` raised, be it on another thread.
    void raise() {
        if (type_ == nullptr) return;
        PyErr_Restore(type_, value_, traceback_);
        throw PythonError{};
    }

 private:
    int32_t hear(const smlora_tune_progress& p) {
        // Ctrl-C, on the main thread.
        bool goes_on = PyErr_CheckSignals() == 0;
        if (goes_on && progress_ != Py_None) {
            PyObject* const told = PyObject_CallFunction(
                progress_, "{s:L,s:s,s:s,s:K,s:K,s:s,s:d}", "tokens", static_cast<long long>(p.tokens), "work", p.work,
                "phase", p.phase, "done", static_cast<unsigned long long>(p.done), "total",
                static_cast<unsigned long long>(p.total), "best", p.best, "best_seconds", p.best_seconds);
            goes_on = told != nullptr && told != Py_False;
            Py_XDECREF(told);
        }
        if (PyErr_Occurred() != nullptr) PyErr_Fetch(&type_, &value_, &traceback_);
        return goes_on ? 0 : 1;
    }

    PyObject* progress_;  // borrowed
    PyObject* type_ = nullptr;
    PyObject* value_ = nullptr;
    PyObject* traceback_ = nullptr;
};

}  // namespace

smlora_engine* engine_of(PyObject* capsule) {
    auto* engine = static_cast<smlora_engine*>(PyCapsule_GetPointer(capsule, engine_name));
    if (engine == nullptr) throw PythonError{};
    return engine;
}

PyObject* engine(Arguments arguments) {
    smlora_engine_options options;
    smlora_engine_options_init(&options, sizeof options);
    options.backend = static_cast<smlora_backend>(arguments.integer());
    options.device = static_cast<int32_t>(arguments.integer());
    const std::string shipped_layer = string_of(arguments.next());
    options.shipped_layer = shipped_layer.c_str();
    options.threads = static_cast<int32_t>(arguments.integer());
    options.determinism = static_cast<smlora_determinism>(arguments.integer());
    arguments.end();
    smlora_engine* created = nullptr;
    check(smlora_engine_create(&options, &created));
    return PyCapsule_New(created, engine_name, destroy_engine);
}

PyObject* set_nvrtc_folders(Arguments arguments) {
    const std::vector<std::string> folders = strings_of(arguments.next());
    arguments.end();
    check(smlora_set_nvrtc_folders(pointers_to(folders).data(), folders.size()));
    return none();
}

PyObject* system_info(Arguments arguments) {
    arguments.end();
    char* text = nullptr;
    check(without_gil([&] { return smlora_system_info(&text); }));
    return text_of(text);
}

PyObject* cache_stats(Arguments arguments) {
    smlora_engine* const engine = engine_of(arguments.next());
    arguments.end();
    char* text = nullptr;
    check(without_gil([&] { return smlora_cache_stats(engine, &text); }));
    return text_of(text);
}

PyObject* count_use(Arguments arguments) {
    smlora_engine* const engine = engine_of(arguments.next());
    arguments.end();
    check(without_gil([&] { return smlora_cache_count_use(engine); }));
    return none();
}

PyObject* check_problem(Arguments arguments) {
    const smlora_problem problem = problem_of(arguments.next());
    arguments.end();
    check(smlora_validate(&problem));
    return none();
}

PyObject* prewarm(Arguments arguments) {
    smlora_engine* const engine = engine_of(arguments.next());
    std::vector<smlora_problem> problems;
    for (PyObject* const fields : items_of(arguments.next())) problems.push_back(problem_of(fields));
    const std::vector<std::int64_t> tokens = integers_of(arguments.next());
    std::vector<smlora_prewarm_activation> activations;
    for (PyObject* const fields : items_of(arguments.next())) activations.push_back(activation_of(fields));
    const std::vector<std::string> archs = strings_of(arguments.next());
    smlora_prewarm_options options;
    smlora_prewarm_options_init(&options, sizeof options);
    options.check_only = static_cast<int32_t>(arguments.integer());
    arguments.end();
    options.problems = problems.data();
    options.problem_count = problems.size();
    options.tokens = tokens.data();
    options.token_count = tokens.size();
    options.activations = activations.data();
    options.activation_count = activations.size();
    const std::vector<const char*> names = pointers_to(archs);
    options.archs = names.data();
    options.arch_count = names.size();
    char* report = nullptr;
    check(without_gil([&] { return smlora_prewarm(engine, &options, &report); }));
    return text_of(report);
}

PyObject* tune(Arguments arguments) {
    smlora_engine* const engine = engine_of(arguments.next());
    const smlora_problem problem = problem_of(arguments.next());
    const std::vector<std::int64_t> tokens = integers_of(arguments.next());
    smlora_tune_options options;
    smlora_tune_options_init(&options, sizeof options);
    options.tokens = tokens.data();
    options.token_count = tokens.size();
    options.seconds = static_cast<double>(number_of(arguments.next()));
    options.memory_bytes = static_cast<uint64_t>(arguments.integer());
    options.candidates = static_cast<int32_t>(arguments.integer());
    options.rounds = static_cast<int32_t>(arguments.integer());
    options.skew = static_cast<smlora_tune_skew>(arguments.integer());
    options.again = static_cast<int32_t>(arguments.integer());
    TuneListener listener(arguments.next());
    arguments.end();
    options.progress = &TuneListener::hear;
    options.progress_user = &listener;
    char* report = nullptr;
    const smlora_status status = without_gil([&] { return smlora_tune(engine, &problem, &options, &report); });
    listener.raise();
    check(status);
    return text_of(report);
}

}  // namespace smlora::python
