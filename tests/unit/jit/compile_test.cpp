// Compiles a small family with the NVRTC of this machine.
#include "jit/compile_options.hpp"
#include "jit/elf.hpp"
#include "jit/kernel_compiler.hpp"
#include "sample_templates.hpp"
#include "temporary_folder.hpp"

#include <smlora/error.hpp>

#include <gtest/gtest.h>

#include <functional>
#include <random>
#include <set>
#include <thread>

namespace smlora::jit {
namespace {

using test::TemporaryFolder;

class Compile : public testing::Test {
 protected:
    void SetUp() override { test::write_sample_templates(folder); }

    [[nodiscard]] CompileRequest request(const KernelSpec& spec, const char* arch = "sm_90a") const {
        return compile_request(spec, gpu::arch_from_name(arch), Nvrtc::instance().version(), Templates(folder.path()));
    }
    [[nodiscard]] std::string message_of_failure(const KernelSpec& spec) const {
        try {
            (void)compile_kernel(request(spec), Nvrtc::instance());
        } catch (const Error& error) {
            EXPECT_EQ(error.code(), ErrorCode::compile);
            return error.what();
        }
        ADD_FAILURE() << "it compiled";
        return {};
    }

    TemporaryFolder folder;
};

TEST_F(Compile, CountsNoBytesBeforeParametersOfALargeAlignment) {
    folder.write("args/scale.h", R"(#pragma once
namespace smlora::scale {
struct alignas(64) Args {
    float* out;
    unsigned count;
    int unused[20];
};
}  // namespace smlora::scale
)");
    const KernelSpec spec = test::sample_spec();
    for (const char* arch : {"sm_80", "sm_90a", "sm_120a"}) {
        std::string why;
        const auto found = find_kernel(compile_kernel(request(spec, arch), Nvrtc::instance()).cubin, symbol(spec), why);
        ASSERT_TRUE(found) << arch << ": " << why;
        EXPECT_EQ(found->args_bytes, 128U) << arch;
    }
}

TEST_F(Compile, GivesACubinWithTheKernelForEveryArchitecture) {
    for (const char* arch : {"sm_80", "sm_86", "sm_89", "sm_90a", "sm_100a", "sm_120a"}) {
        const KernelSpec spec = test::sample_spec();
        const CompiledKernel kernel = compile_kernel(request(spec, arch), Nvrtc::instance());
        std::string why;
        const auto found = find_kernel(kernel.cubin, symbol(spec), why);
        ASSERT_TRUE(found) << arch << ": " << why;
        EXPECT_EQ(found->args_bytes, 24U) << arch;
        EXPECT_GT(kernel.resources.registers, 0) << arch;
        EXPECT_LE(kernel.resources.registers, 255) << arch;
        EXPECT_EQ(kernel.resources.shared_bytes, 128) << arch;
        // Releases before 12.8 do not report them.
        if (Nvrtc::instance().version() >= CompilerVersion{12, 8, 0}) {
            EXPECT_EQ(kernel.resources.barriers, 1) << arch;
        }
        EXPECT_EQ(kernel.resources.spill_bytes(), 0) << arch;
        EXPECT_GT(kernel.seconds, 0) << arch;
    }
}

TEST_F(Compile, TwiceGivesTheSameBytesAlsoFromAnotherFolderAndThread) {
    const CompiledKernel first = compile_kernel(request(test::sample_spec()), Nvrtc::instance());
    const TemporaryFolder other;
    test::write_sample_templates(other);
    const CompileRequest again = compile_request(test::sample_spec(), gpu::arch_from_name("sm_90a"),
                                                 Nvrtc::instance().version(), Templates(other.path()));
    std::vector<std::string> cubins(4);
    std::vector<std::thread> threads;
    for (std::string& cubin : cubins) {
        threads.emplace_back([&] { cubin = compile_kernel(again, Nvrtc::instance()).cubin; });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    for (const std::string& cubin : cubins) {
        EXPECT_TRUE(cubin == first.cubin);
    }
}

TEST_F(Compile, RegisterSpillsAreReported) {
    folder.write("spill.cuh", R"(
namespace smlora::spill {
struct Args { float* p; int n; };
template <class C>
__device__ void run(const Args& args) {
    float v[C::VALUES];
    #pragma unroll
    for (int i = 0; i < C::VALUES; ++i) v[i] = args.p[i * args.n + threadIdx.x];
    for (int k = 0; k < args.n; ++k) {
        #pragma unroll
        for (int i = 0; i < C::VALUES; ++i) v[i] = v[i] * v[(i * 37 + 11) % C::VALUES] + v[(i * 13 + 7) % C::VALUES];
    }
    #pragma unroll
    for (int i = 0; i < C::VALUES; ++i) args.p[i + threadIdx.x] = v[i];
}
}
)");
    KernelSpec spec;
    spec.family = "spill";
    spec.constants = {{"VALUES", 100}};
    spec.threads = 1024;
    const CompiledKernel kernel = compile_kernel(request(spec), Nvrtc::instance());
    EXPECT_LE(kernel.resources.registers, 64);
    EXPECT_GT(kernel.resources.spill_store_bytes, 0);
    EXPECT_GT(kernel.resources.spill_load_bytes, 0);
    EXPECT_GE(kernel.resources.stack_bytes, kernel.resources.spill_store_bytes / 2);
}

TEST_F(Compile, FailureNamesTheKernelTheOptionsAndTheLog) {
    KernelSpec spec = test::sample_spec();
    spec.constants[2].type = "smlora::bf17";
    const std::string message = message_of_failure(spec);
    for (const char* part : {"scale ROWS=64 FACTOR=3 Element=bf17", "sm_90a", "NVRTC_ERROR_COMPILATION", "-std=c++20",
                             "no member \"bf17\"", "nvrtc "}) {
        EXPECT_NE(message.find(part), std::string::npos) << part << "\nin\n" << message;
    }
}

TEST_F(Compile, AnArchitectureThatTheCompilerDoesNotKnowIsNamedWithThoseItKnows) {
    CompileRequest future = request(test::sample_spec());
    future.arch.major = 99;
    try {
        (void)compile_kernel(future, Nvrtc::instance());
        FAIL();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::compile);
        EXPECT_NE(std::string(error.what()).find("for sm_990a: nvrtc "), std::string::npos) << error.what();
        EXPECT_NE(std::string(error.what()).find("80, 86"), std::string::npos) << error.what();
    }
}

TEST_F(Compile, FailureInPtxasIsAFailureToo) {
    folder.write("ptx/lane.cuh",
                 "namespace smlora::ptx { __device__ unsigned lane() { asm volatile(\"no.such.instruction;\"); return "
                 "0; } }\n#include \"math.cuh\"\n");
    EXPECT_NE(message_of_failure(test::sample_spec()).find("Not a name of any known instruction"), std::string::npos);
}

TEST_F(Compile, ACubinWithoutTheKernelIsRefused) {
    CompileRequest without = request(test::sample_spec());
    without.source = "__device__ int x;\n";
    try {
        (void)compile_kernel(without, Nvrtc::instance());
        FAIL();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::compile);
        EXPECT_NE(std::string(error.what()).find("smlora_scale"), std::string::npos) << error.what();
    }
}

TEST_F(Compile, TheDigestOfMachineCodeIsOfTheCodeAlone) {
    const auto digest_now = [&] {
        return machine_code_digest(compile_kernel(request(test::sample_spec()), Nvrtc::instance()).cubin);
    };
    const auto before = digest_now();
    ASSERT_TRUE(before.has_value());
    const std::string sound = folder.read("ptx/math.cuh");
    const auto with = [&](const std::string& from, const std::string& to) {
        std::string text = sound;
        text.replace(text.find(from), from.size(), to);
        folder.write("ptx/math.cuh", text);
        return digest_now();
    };
    EXPECT_EQ(with("return 2.0f * value;", "// Doubled.\n const float factor = 2.0f;\n return value * factor;"),
              before);
    EXPECT_NE(with("2.0f", "3.0f"), before);
    EXPECT_EQ(with("2.0f", "2.0f"), before);
    // More rows of shared memory.
    KernelSpec taller = test::sample_spec();
    taller.constants[0].integer *= 2;
    EXPECT_NE(machine_code_digest(compile_kernel(request(taller), Nvrtc::instance()).cubin), before);
    EXPECT_FALSE(machine_code_digest("").has_value());
    EXPECT_FALSE(machine_code_digest("no cubin").has_value());
}

TEST_F(Compile, ADamagedCubinIsNoCrash) {
    const KernelSpec spec = test::sample_spec();
    const std::string cubin = compile_kernel(request(spec), Nvrtc::instance()).cubin;
    std::string why;
    ASSERT_TRUE(find_kernel(cubin, symbol(spec), why));
    EXPECT_FALSE(find_kernel(cubin, "smlora_scal", why));
    EXPECT_FALSE(find_kernel(cubin, "", why));
    for (std::size_t size = 0; size < cubin.size(); size += 7) {
        // A copy of just that size, so that a read beyond it is one beyond an allocation.
        const std::string start(cubin, 0, size);
        why.clear();
        if (!find_kernel(start, symbol(spec), why)) {
            EXPECT_FALSE(why.empty());
        }
    }
    std::mt19937 random(7);
    for (int round = 0; round < 3000; ++round) {
        std::string damaged = cubin;
        for (int changes = 0; changes < 4; ++changes) {
            // The ELF header and the section headers, where offsets and sizes are.
            const std::size_t range = round % 2 == 0 ? 64 : damaged.size();
            damaged[random() % range] = static_cast<char>(random());
        }
        (void)find_kernel(damaged, symbol(spec), why);
    }
}

TEST_F(Compile, AHeaderInTheCurrentFolderIsNotFound) {
    const TemporaryFolder elsewhere;
    elsewhere.write("stray.cuh", "");
    const auto before = std::filesystem::current_path();
    std::filesystem::current_path(elsewhere.path());
    CompileRequest stray = request(test::sample_spec());
    stray.source = "#include \"stray.cuh\"\n" + stray.source;
    EXPECT_THROW((void)compile_kernel(stray, Nvrtc::instance()), Error);
    std::filesystem::current_path(before);
}

TEST_F(Compile, KeyChangesWithWhateverChangesTheCodeAndEachTimeToAnother) {
    const CompileRequest base = request(test::sample_spec());
    std::set<std::string> keys{cache_key(base)};
    std::size_t changes = 0;
    const auto changed = [&](const std::function<void(CompileRequest&)>& change) {
        CompileRequest other = base;
        change(other);
        keys.insert(cache_key(other));
        EXPECT_EQ(keys.size(), ++changes + 1);
    };
    ASSERT_EQ(base.templates.size(), 4U);
    for (std::size_t i = 0; i < base.templates.size(); ++i) {
        changed([&](CompileRequest& other) { other.templates[i].text += ' '; });
        changed([&](CompileRequest& other) { other.templates[i].name += 'x'; });
    }
    changed([](CompileRequest& other) { ++other.compiler.build; });
    changed([](CompileRequest& other) { ++other.compiler.minor; });
    changed([](CompileRequest& other) { other.arch = gpu::arch_from_name("sm_100a"); });
    changed([](CompileRequest& other) { other.arch.suffix = '\0'; });
    changed([](CompileRequest& other) { other.options.emplace_back("-lineinfo"); });
    changed([](CompileRequest& other) { other.options.pop_back(); });
    // Options are items, not one line: gluing two together is another list.
    changed([](CompileRequest& other) {
        other.options[0] += ' ' + other.options[1];
        other.options.erase(other.options.begin() + 1);
    });
    changed([](CompileRequest& other) {
        KernelSpec spec = other.spec;
        spec.constants[0].integer = 32;
        other.source = source(spec);
    });
}

TEST_F(Compile, KeyOfARequestFollowsConstantsBoundsAndTemplatesOnDisk) {
    const std::string base = cache_key(request(test::sample_spec()));
    EXPECT_EQ(base.size(), 32U);
    KernelSpec spec = test::sample_spec();
    spec.constants[1].integer = 4;
    EXPECT_NE(cache_key(request(spec)), base);
    spec = test::sample_spec();
    spec.threads = 128;
    EXPECT_NE(cache_key(request(spec)), base);
    EXPECT_NE(cache_key(request(test::sample_spec(), "sm_80")), base);
    folder.write("ptx/math.cuh", folder.read("ptx/math.cuh") + "// more\n");
    EXPECT_NE(cache_key(request(test::sample_spec())), base);
}

TEST_F(Compile, KeyDoesNotChangeWithTheFolder) {
    const TemporaryFolder other;
    test::write_sample_templates(other);
    other.write("another_family.cuh", "int x;\n");
    EXPECT_EQ(cache_key(compile_request(test::sample_spec(), gpu::arch_from_name("sm_90a"), Nvrtc::instance().version(),
                                        Templates(other.path()))),
              cache_key(request(test::sample_spec())));
    EXPECT_EQ(cache_key(request(test::sample_spec())), cache_key(request(test::sample_spec())));
}

TEST_F(Compile, KeyDoesNotChangeWithDynamicSharedMemory) {
    KernelSpec spec = test::sample_spec();
    spec.dynamic_shared = 1024;
    EXPECT_EQ(cache_key(request(spec)), cache_key(request(test::sample_spec())));
}

TEST(CompileOptions, AreThoseThatTheCompilerKnows) {
    const auto has = [](const std::vector<std::string>& options, const char* option) {
        return std::find(options.begin(), options.end(), option) != options.end();
    };
    const gpu::Arch arch = gpu::arch_from_name("sm_90a");
    const auto old = compile_options(arch, {12, 4, 127});
    const auto recent = compile_options(arch, {12, 9, 86});
    EXPECT_FALSE(has(old, "-no-cache"));
    EXPECT_TRUE(has(recent, "-no-cache"));
    EXPECT_TRUE(has(recent, "--frandom-seed=smlora"));
    for (const auto& options : {old, recent}) {
        EXPECT_TRUE(has(options, "--gpu-architecture=sm_90a"));
        EXPECT_TRUE(has(options, "-modify-stack-limit=false"));
        EXPECT_TRUE(has(options, "-Xptxas=-v"));
    }
}

TEST(Nvrtc, KnowsItsBuildAndArchitectures) {
    const Nvrtc& nvrtc = Nvrtc::instance();
    EXPECT_GE(nvrtc.version(), (CompilerVersion{12, 0, 1}));
    EXPECT_EQ(nvrtc.version().name(), "nvrtc " + nvrtc.version().number());
    EXPECT_NE(std::find(nvrtc.archs().begin(), nvrtc.archs().end(), 80), nvrtc.archs().end());
    EXPECT_TRUE(std::filesystem::is_regular_file(nvrtc.file())) << nvrtc.file();
}

TEST(Nvrtc, ALibraryThatIsMissingOrNoNvrtcIsNamed) {
    for (const char* library : {"/nowhere/libnvrtc.so.13", "libm.so.6"}) {
        try {
            const Nvrtc opened(library);
            FAIL() << library;
        } catch (const Error& error) {
            EXPECT_EQ(error.code(), ErrorCode::compile);
            EXPECT_EQ(std::string(error.what()).rfind(library, 0), 0U) << error.what();
        }
    }
}

TEST(CompilerVersion, IsReadBackFromItsNumberOnly) {
    EXPECT_EQ(compiler_version_from_number("13.0.88"), (CompilerVersion{13, 0, 88}));
    EXPECT_LT((CompilerVersion{12, 9, 86}), (CompilerVersion{13, 0, 88}));
    for (const char* text : {"", "13", "13.0", "13.0.", "13.0.88 ", " 13.0.88", "13.0.88.1", "13.-1.88", "+13.0.88",
                             "013.0.88", "13,0,88", "0.0.0", "99999999999.0.0"}) {
        EXPECT_FALSE(compiler_version_from_number(text)) << text;
    }
}

}  // namespace
}  // namespace smlora::jit
