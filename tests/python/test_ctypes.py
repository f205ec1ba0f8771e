"""Drives the C interface on the CPU backend with nothing but Python's standard library."""

import ctypes
import os
import random
import tempfile
import threading
import unittest
from ctypes import byref, c_char_p, c_int64, c_size_t, c_void_p, sizeof

from c_interface import (
    CPU, FP32, INT32, INVALID_ARGUMENT, TOKEN, UNSUPPORTED, Array, BackwardInputArgs, BackwardLoraArgs,
    CombineArgs, EngineOptions, ForwardArgs, GroupArgs, LogCallback, PrewarmCallback, PrewarmOptions, Problem,
    RouteArgs, Routing, TuneOptions, Workspace, check, json_of, last_error, lib, random_array
)


class CpuEngine(unittest.TestCase):
    def setUp(self):
        self.cache = tempfile.TemporaryDirectory(prefix="smlora-ctypes-")
        self.addCleanup(self.cache.cleanup)
        self.engine = c_void_p()
        options = EngineOptions(backend=CPU, cache_root=self.cache.name.encode(), cache_layers=(c_char_p * 1)(),
                                threads=2)
        check(lib.smlora_engine_create(byref(options), byref(self.engine)))
        self.addCleanup(lambda: lib.smlora_engine_destroy(self.engine))

    def run_operation(self, name, problem, args):
        check(getattr(lib, f"smlora_{name}")(self.engine, None, byref(problem), byref(args)))


class Step(CpuEngine):
    """One projection with gates, bias and an adapter, against the formulas written out in Python."""

    E, K, N, R, top_k, T, scaling = 3, 5, 4, 2, 2, 6, 0.5

    def setUp(self):
        super().setUp()
        generator = random.Random(3)
        E, K, N, R, top_k, T = self.E, self.K, self.N, self.R, self.top_k, self.T
        self.M = T * top_k
        self.problem = Problem(E=E, K=K, N=N, R=R, top_k=top_k, dtype=FP32, adapter_dtype=FP32, y_rows=TOKEN, bias=1,
                               gates=1)
        # Expert 1 has no rows, and one entry is left out.
        self.top_idx = [generator.choice([0, 2]) for _ in range(self.M)]
        self.top_idx[4] = -1
        self.x, self.W = random_array(generator, T, K), random_array(generator, E, K, N)
        self.A, self.B = random_array(generator, E, R, K), random_array(generator, E, N, R)
        self.bias, self.gates = random_array(generator, E, N), random_array(generator, T, top_k)
        self.dy = random_array(generator, T, N)

        self.experts, self.scattered = Array([self.M], dtype=INT32), Array([self.M], dtype=INT32)
        self.offsets = Array([E], dtype=INT32)
        self.routing = Routing(self.experts.view, self.scattered.view, self.offsets.view)
        choices = Array([T, top_k], self.top_idx, INT32)
        self.run_operation("route", self.problem, RouteArgs(top_idx=choices.view, routing=self.routing))

    def effective_weight(self, e, k, n):
        lora = sum(self.A[(e * self.R + r) * self.K + k] * self.B[(e * self.N + n) * self.R + r] for r in range(self.R))
        return self.W[(e * self.K + k) * self.N + n] + self.scaling * lora

    def entries(self):
        """Every entry that is not left out: its token, its flat index and its expert."""
        return [(f // self.top_k, f, e) for f, e in enumerate(self.top_idx) if e >= 0]

    def assert_close(self, array, expected):
        for got, value in zip(array.values, expected, strict=True):
            self.assertAlmostEqual(got, value, delta=1e-5)

    def test_route_sorts_by_expert_and_keeps_the_order_within_one(self):
        order = sorted(range(self.M), key=lambda f: (self.E if self.top_idx[f] < 0 else self.top_idx[f], f))
        self.assertEqual(list(self.scattered.values), order)
        counts = [self.top_idx.count(e) for e in range(self.E)]
        self.assertEqual(list(self.offsets.values), [sum(counts[:e + 1]) for e in range(self.E)])
        self.assertEqual(counts[1], 0)

    def forward(self):
        y = Array([self.T, self.N])
        self.run_operation("forward", self.problem,
                           ForwardArgs(x=self.x.view, W=self.W.view, A=self.A.view, B=self.B.view, bias=self.bias.view,
                                       gates=self.gates.view, routing=self.routing, y=y.view, scaling=self.scaling))
        return y

    def test_forward(self):
        expected = [0.0] * (self.T * self.N)
        for t, f, e in self.entries():
            for n in range(self.N):
                product = sum(self.x[t * self.K + k] * self.effective_weight(e, k, n) for k in range(self.K))
                expected[t * self.N + n] += self.gates[f] * (product + self.bias[e * self.N + n])
        self.assert_close(self.forward(), expected)

    def test_backward_input_with_the_gradient_of_the_gates(self):
        dx, dgates = Array([self.T, self.K]), Array([self.T, self.top_k])
        self.run_operation("backward_input", self.problem,
                           BackwardInputArgs(dy=self.dy.view, W=self.W.view, A=self.A.view, B=self.B.view,
                                             gates=self.gates.view, routing=self.routing, dx=dx.view, x=self.x.view,
                                             bias=self.bias.view, dgates=dgates.view, scaling=self.scaling))
        expected_dx, expected_dgates = [0.0] * (self.T * self.K), [0.0] * self.M
        for t, f, e in self.entries():
            dy = self.dy.values[t * self.N:(t + 1) * self.N]
            expected_dgates[f] = sum(dy[n] * self.bias[e * self.N + n] for n in range(self.N))
            for k in range(self.K):
                ungated = sum(dy[n] * self.effective_weight(e, k, n) for n in range(self.N))
                expected_dx[t * self.K + k] += self.gates[f] * ungated
                expected_dgates[f] += ungated * self.x[t * self.K + k]
        self.assert_close(dx, expected_dx)
        self.assert_close(dgates, expected_dgates)

    def test_backward_lora(self):
        dA, dB = Array([self.E, self.R, self.K]), Array([self.E, self.N, self.R])
        self.run_operation("backward_lora", self.problem,
                           BackwardLoraArgs(x=self.x.view, dy=self.dy.view, A=self.A.view, B=self.B.view,
                                            gates=self.gates.view, routing=self.routing, dA=dA.view, dB=dB.view,
                                            scaling=self.scaling))
        expected_dA, expected_dB = [0.0] * (self.E * self.R * self.K), [0.0] * (self.E * self.N * self.R)
        for t, f, e in self.entries():
            coefficient = self.scaling * self.gates[f]
            for r in range(self.R):
                yb = sum(self.dy[t * self.N + n] * self.B[(e * self.N + n) * self.R + r] for n in range(self.N))
                xa = sum(self.x[t * self.K + k] * self.A[(e * self.R + r) * self.K + k] for k in range(self.K))
                for k in range(self.K):
                    expected_dA[(e * self.R + r) * self.K + k] += coefficient * yb * self.x[t * self.K + k]
                for n in range(self.N):
                    expected_dB[(e * self.N + n) * self.R + r] += coefficient * xa * self.dy[t * self.N + n]
        self.assert_close(dA, expected_dA)
        self.assert_close(dB, expected_dB)
        without_rows = slice(self.R * self.K, 2 * self.R * self.K)
        self.assertEqual(list(dA.values[without_rows]), [0.0] * (self.R * self.K))

    def test_group_gathers_and_combine_sums(self):
        grouped = Array([self.M, self.K])
        self.run_operation("group", self.problem, GroupArgs(x=self.x.view, routing=self.routing, out=grouped.view))
        for i, f in enumerate(self.scattered.values):
            left_out = self.top_idx[f] < 0
            t = f // self.top_k
            self.assertEqual(list(grouped.values[i * self.K:(i + 1) * self.K]),
                             [0.0] * self.K if left_out else list(self.x.values[t * self.K:(t + 1) * self.K]))
        y = random_array(random.Random(5), self.M, self.N)
        out = Array([self.T, self.N])
        self.run_operation("combine", self.problem, CombineArgs(y=y.view, gates=self.gates.view, out=out.view))
        self.assert_close(out, [sum(self.gates[t * self.top_k + j] * y[(t * self.top_k + j) * self.N + n]
                                    for j in range(self.top_k)) for t in range(self.T) for n in range(self.N)])

    def test_a_workspace_of_the_callers_gives_the_same(self):
        bytes_needed = c_size_t(12345)
        check(lib.smlora_forward_workspace(self.engine, byref(self.problem), c_int64(self.T), byref(bytes_needed)))
        buffer = c_void_p()
        check(lib.smlora_buffer_create(self.engine, c_size_t(bytes_needed.value), byref(buffer)))
        self.addCleanup(lib.smlora_buffer_destroy, buffer)
        y = Array([self.T, self.N])
        args = ForwardArgs(x=self.x.view, W=self.W.view, A=self.A.view, B=self.B.view, bias=self.bias.view,
                           gates=self.gates.view, routing=self.routing, y=y.view, scaling=self.scaling,
                           workspace=Workspace(lib.smlora_buffer_data(buffer), bytes_needed.value))
        self.run_operation("forward", self.problem, args)
        self.assertEqual(list(y.values), list(self.forward().values))

    def test_a_wrong_shape_is_named_with_what_was_expected(self):
        short, y = Array([self.E, self.R, self.K - 1]), Array([self.T, self.N])
        args = ForwardArgs(x=self.x.view, W=self.W.view, A=short.view, B=self.B.view, bias=self.bias.view,
                           gates=self.gates.view, routing=self.routing, y=y.view)
        self.assertEqual(lib.smlora_forward(self.engine, None, byref(self.problem), byref(args)), INVALID_ARGUMENT)
        self.assertRegex(last_error(), r"^A: .*\[3, 2, 5\].*\[3, 2, 4\]")


class Engine(CpuEngine):
    def test_buffers_keep_what_is_copied_in(self):
        buffer = c_void_p()
        check(lib.smlora_buffer_create(self.engine, c_size_t(16), byref(buffer)))
        self.addCleanup(lib.smlora_buffer_destroy, buffer)
        check(lib.smlora_buffer_fill(buffer, ctypes.c_ubyte(7)))
        check(lib.smlora_buffer_copy_from_host(buffer, b"abcd", 4, 2))
        target = ctypes.create_string_buffer(8)
        check(lib.smlora_buffer_copy_to_host(buffer, target, 8, 0))
        self.assertEqual(target.raw, b"\7\7abcd\7\7")
        self.assertEqual(lib.smlora_buffer_copy_from_host(buffer, b"abcd", 4, 13), INVALID_ARGUMENT)

    def test_prewarming_reports_each_kernel_and_finds_them_all_the_second_time(self):
        if not json_of(lib.smlora_system_info)["nvrtc"]["found"]:
            self.skipTest("needs NVRTC")
        seen = []
        callback = PrewarmCallback(lambda p, user: seen.append((p[0].done, p[0].total, p[0].kernel.decode())))
        problems = (Problem * 1)(Problem(E=4, K=64, N=64, R=8, top_k=2))
        options = PrewarmOptions(problems=problems, problem_count=1, tokens=(c_int64 * 1)(32), token_count=1,
                                 archs=(c_char_p * 1)(b"sm_90a"), arch_count=1, progress=callback)
        first = json_of(lib.smlora_prewarm, self.engine, byref(options))
        self.assertGreater(first["kernels"], 0)
        self.assertEqual(first["compiled"], first["kernels"])
        self.assertEqual([done for done, _, _ in seen], list(range(1, first["kernels"] + 1)))
        self.assertTrue(all(total == first["kernels"] and kernel for _, total, kernel in seen))

        second = json_of(lib.smlora_prewarm, self.engine, byref(options))
        self.assertEqual((second["compiled"], second["found"]), (0, first["kernels"]))
        entries = json_of(lib.smlora_cache_list, self.engine)["entries"]
        self.assertEqual(len(entries), first["kernels"])
        entry = json_of(lib.smlora_cache_inspect, self.engine, entries[0]["key"].encode())
        self.assertEqual(entry["arch"], "sm_90a")
        self.assertIsInstance(entry["metadata"], dict)

    def test_tuning_refuses_what_makes_no_sense_and_the_cpu(self):
        self.assertEqual((TuneOptions().seconds, TuneOptions().rounds), (60, 9))
        problem = Problem(E=4, K=64, N=64, R=8, top_k=2)
        for options, message in ((TuneOptions(seconds=-1), "seconds: expected a number above 0, got -1"),
                                 (TuneOptions(rounds=0), "rounds: expected 1 or more, got 0"),
                                 (TuneOptions(skew=3), "options.skew: expected 0 to 2, got 3"),
                                 (TuneOptions(token_count=1), "options.tokens: expected a pointer, got null"),
                                 (TuneOptions(again=2), "options.again: expected 0 or 1, got 2")):
            self.assertEqual(lib.smlora_tune(self.engine, byref(problem), byref(options), None), INVALID_ARGUMENT)
            self.assertEqual(last_error(), message)
        self.assertEqual(lib.smlora_tune(self.engine, byref(problem), None, None), UNSUPPORTED)
        self.assertIn("expected the CUDA backend", last_error())

    def test_cache_layers_begin_with_the_writable_one(self):
        layers = json_of(lib.smlora_cache_layers, self.engine)["layers"]
        self.assertEqual(layers[0]["root"], self.cache.name)
        self.assertTrue(layers[0]["writable"])

    def test_the_shipped_layer_never_stops_an_engine(self):
        shipped = os.path.join(self.cache.name, "shipped")
        warnings = []
        callback = LogCallback(lambda level, line, user: warnings.append(line.decode()) if level == 2 else None)

        def roots():
            options = EngineOptions(backend=CPU, cache_root=self.cache.name.encode(), cache_layers=(c_char_p * 1)(),
                                    shipped_layer=shipped.encode(), log=callback)
            engine = c_void_p()
            check(lib.smlora_engine_create(byref(options), byref(engine)))
            self.addCleanup(lib.smlora_engine_destroy, engine)
            return [layer["root"] for layer in json_of(lib.smlora_cache_layers, engine)["layers"]]

        self.assertEqual(roots(), [self.cache.name])
        os.mkdir(shipped, 0o700)
        self.assertEqual(roots(), [self.cache.name, shipped])
        self.assertEqual(warnings, [])
        os.chmod(shipped, 0o777)
        self.assertEqual(roots(), [self.cache.name])
        self.assertEqual(len(warnings), 1)
        self.assertIn(f"chmod -R go-w {shipped}", warnings[0])

    def test_a_caller_of_the_first_header_is_served(self):
        options = EngineOptions(backend=CPU, cache_root=self.cache.name.encode(), cache_layers=(c_char_p * 1)(),
                                shipped_layer=b"not read")
        options.struct_size = EngineOptions.shipped_layer.offset
        engine = c_void_p()
        check(lib.smlora_engine_create(byref(options), byref(engine)))
        lib.smlora_engine_destroy(engine)

    def test_log_lines_reach_the_callback(self):
        lines = []
        callback = LogCallback(lambda level, line, user: lines.append((level, line.decode(), user)))
        missing = os.path.join(self.cache.name, "missing")
        layers = (c_char_p * 1)(missing.encode())
        options = EngineOptions(backend=CPU, cache_root=self.cache.name.encode(), cache_layers=layers,
                                cache_layer_count=1, log=callback, log_user=42)
        engine = c_void_p()
        check(lib.smlora_engine_create(byref(options), byref(engine)))
        lib.smlora_engine_destroy(engine)
        self.assertEqual([(level, user) for level, line, user in lines if missing in line], [(1, 42)])


class Errors(unittest.TestCase):
    def test_a_struct_without_its_size_is_refused(self):
        problem = Problem(E=1, K=1, N=1)
        check(lib.smlora_validate(byref(problem)))
        problem.struct_size = 8
        self.assertEqual(lib.smlora_validate(byref(problem)), INVALID_ARGUMENT)
        # A caller that was compiled before weights had a format has none.
        oldest = Problem.weights.offset
        self.assertIn(f"expected at least {oldest}, got 8", last_error())
        problem.weights.encoding = 77
        problem.struct_size = oldest
        check(lib.smlora_validate(byref(problem)))

    def test_a_struct_of_a_later_header_is_taken_while_its_new_members_are_zero(self):
        class LaterProblem(ctypes.Structure):
            _fields_ = [("known", Problem), ("unknown", c_int64)]

        later = LaterProblem(known=Problem(E=1, K=1, N=1))
        later.known.struct_size = sizeof(later)
        check(lib.smlora_validate(byref(later)))
        later.unknown = 1
        self.assertEqual(lib.smlora_validate(byref(later)), UNSUPPORTED)

    def test_messages_belong_to_their_thread(self):
        lib.smlora_validate(None)
        mine, others = last_error(), []

        def fail_differently():
            problem = Problem(E=1, K=1, N=1, R=999)
            lib.smlora_validate(byref(problem))
            others.append(last_error())

        thread = threading.Thread(target=fail_differently)
        thread.start()
        thread.join()
        self.assertEqual(last_error(), mine)
        self.assertIn("999", others[0])


class Types(unittest.TestCase):
    def test_names_and_sizes(self):
        names = [lib.smlora_dtype_name(dtype).decode() for dtype in range(10)]
        self.assertEqual(names, ["bf16", "fp16", "fp32", "fp64", "int32", "int64", "uint8", "int8", "e4m3", "e8m0"])
        self.assertEqual([lib.smlora_dtype_size(dtype) for dtype in range(10)], [2, 2, 4, 8, 4, 8, 1, 1, 1, 1])
        self.assertIsNone(lib.smlora_dtype_name(10))

    def test_padded_rank(self):
        self.assertEqual([lib.smlora_padded_rank(R) for R in (0, 1, 8, 9, 256)], [0, 8, 8, 16, 256])

    def test_problem_as_text(self):
        text = c_char_p()
        check(lib.smlora_problem_to_string(byref(Problem(E=128, K=2048, N=1536, R=16, top_k=8)), byref(text)))
        self.assertEqual(text.value, b"E128 K2048 N1536 R16 k8 bf16 ekn token->scattered")
        lib.smlora_free_string(text)

    def test_version_is_three_numbers(self):
        self.assertRegex(lib.smlora_version().decode(), r"^\d+\.\d+\.\d+$")


if __name__ == "__main__":
    unittest.main()
