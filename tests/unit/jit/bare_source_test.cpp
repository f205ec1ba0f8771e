#include "jit/bare_source.hpp"

#include "jit/templates.hpp"
#include "sample_templates.hpp"
#include "temporary_folder.hpp"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace smlora::jit {
namespace {

using Pair = std::pair<std::string, std::string>;

TEST(BareSource, CommentsAndLayoutAreNotInIt) {
    for (const auto& [a, b] : std::vector<Pair>{
             {"int a;", "int  a ;\n"},
             {"int a;", "// what for\nint /* which */ a;  // why\n\n"},
             {"int a;", "int\ta;\r\n"},
             {"f(a, b)", "f(a,\n  b)"},
             {"if (a) { b(); }", "if(a)\n{\n    b();\n}\n"},
             {"int a; int b;", "int a; /* of\nmany\n\"lines */ int b;"},
             {"int a;\nint b;", "int a; // continued \\\n still a comment\nint b;"},
             {"int ab;", "int a\\\nb;"},
             {"#define A 1\nint b;", "#define  A  /* one */  1  // why\nint b;"},
             {"#define A 1 + 2\nint b;", "#define A 1 + \\\n    2\nint b;"},
             {"#define A 1\nint b;", "#define A /* of two\n lines */ 1\n\n\n  int b;"},
             {"int a;\n#if B\nint c;\n#endif", "  int a;\n\n   #if B  // always\nint c;\n#endif\n"},
             {"x = 1'000'000;", "x = 1'000'000; // a 'million"},
             {"asm(\"mma // no comment\" : \"=r\"(a));", "asm(\"mma // no comment\"\n    : \"=r\"(a)); // a comment"},
             {"s = R\"x( /* \\\n\" )x\"; t();", "s = R\"x( /* \\\n\" )x\";\n// x\nt();"},
         }) {
        EXPECT_EQ(bare_source(a), bare_source(b)) << a << "\n" << bare_source(a) << "\n" << bare_source(b);
    }
}

TEST(BareSource, EveryTokenIsInIt) {
    for (const auto& [a, b] : std::vector<Pair>{
             {"int a;", "int b;"},
             {"int a;", "inta;"},
             {"a = b + +c;", "a = b ++c;"},
             {"vector<vector<int> > a;", "vector<vector<int>> a;"},
             {"a < < b", "a << b"},
             {"a - 1", "a + 1"},
             {"1 .5", "1.5"},
             {"0x1e + 5", "0x1e+5"},
             {"s = \"a b\";", "s = \"a  b\";"},
             {"s = \"a // b\";", "s = \"a\";"},
             {"s = \"a /* b */ c\";", "s = \"a  c\";"},
             {"s = \"\\\"// x\";", "s = \"\\\"\";"},
             {"c = '\"'; // x", "c = '\"'; d();"},
             {"c = '/'; /* '*/ e();", "c = '/';"},
             {"L\"a\"", "L \"a\""},
             {"\"a\" \"b\"", "\"ab\""},
             {"#define A 1\nB", "#define A 1 B"},
             {"#define F(x) x", "#define F (x) x"},
             {"#if A\nb\n#endif", "#if A b\n#endif"},
             {"#define A 1 + \\\n 2", "#define A 1 +\n2"},
             {"#error don't\nint a;", "#error don't\nint b;"},
             {"s = R\"(a  b)\";", "s = R\"(a b)\";"},
             {"s = R\"(// a)\";", "s = R\"(// b)\";"},
             {"a; // b\nc;", "a; // b c;"},
             {"a /* b */ c", "ac"},
             {"a / b", "a"},
             {"a / *b", "a /*b*/"},
             {"# a", "a"},
         }) {
        EXPECT_NE(bare_source(a), bare_source(b)) << a << "\n" << bare_source(a);
    }
}

TEST(BareSource, IsItsOwnBareSource) {
    const Templates templates = Templates::embedded();
    const std::vector<std::string> names = templates.names();
    ASSERT_GT(names.size(), 30u);
    for (const std::string& name : names) {
        const std::string text = *templates.text(name);
        const std::string bare = bare_source(text);
        EXPECT_LT(bare.size(), text.size()) << name;
        EXPECT_EQ(bare_source(bare), bare) << name;
        EXPECT_EQ(bare.find("//"), std::string::npos) << name;
    }
}

TEST(BareSource, WhatIsNotWhole) {
    for (const char* text :
         {"", "/*", "/* a", "//", "\"", "'", "R\"(", "R\"", "#", "\\", "\\\n", "a\\\n", "\"a\\", "1'"}) {
        static_cast<void>(bare_source(text));
    }
    EXPECT_EQ(bare_source("a /* never closed"), "a");
}

TEST(Digest, IsOfTheFamilysTokens) {
    const test::TemporaryFolder folder;
    test::write_sample_templates(folder);
    const auto of_scale = [&] { return digest(Templates(folder.path()).closure("scale.cuh")); };
    const std::string before = of_scale();
    const std::string text = folder.read("ptx/math.cuh");
    folder.write("ptx/math.cuh", "// A comment.\n" + text + "\n/* And another. */\n");
    EXPECT_EQ(of_scale(), before) << "a comment";
    folder.write("another_family.cuh", "int x;\n");
    EXPECT_EQ(of_scale(), before) << "another family";
    folder.write("ptx/math.cuh", text + "int x;\n");
    EXPECT_NE(of_scale(), before) << "a token of what it includes";
    folder.write("ptx/math.cuh", text);
    EXPECT_EQ(of_scale(), before);
}

}  // namespace
}  // namespace smlora::jit
