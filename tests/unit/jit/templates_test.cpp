#include "jit/templates.hpp"

#include "jit/include_lines.hpp"
#include "sample_templates.hpp"
#include "temporary_folder.hpp"

#include <smlora/error.hpp>

#include <gtest/gtest.h>

namespace smlora::jit {
namespace {

using test::ScopedVariable;
using test::TemporaryFolder;

std::vector<std::string> names_of(const std::vector<Template>& templates) {
    std::vector<std::string> names;
    for (const Template& item : templates) {
        names.push_back(item.name);
    }
    return names;
}

std::vector<std::string> included(std::string_view text) {
    std::vector<std::string> names;
    for (const IncludeLine& include : quoted_includes(text)) {
        EXPECT_EQ(text.substr(include.offset, include.name.size()), include.name);
        names.push_back(include.name);
    }
    return names;
}

TEST(IncludeLines, AreFoundWhateverTheirSpacing) {
    EXPECT_EQ(included("#include \"a.h\"\n  #  include\t\"b.h\"\r\n#include\"c.h\" // why\n#include \"d.h\""),
              (std::vector<std::string>{"a.h", "b.h", "c.h", "d.h"}));
}

TEST(IncludeLines, OfTheCompilerAndOtherDirectivesAreNotQuoted) {
    EXPECT_TRUE(
        included("#include <a.h>\n#define X \"b.h\"\n#include X\n#includes\nint x; #include \"c.h\"\n").empty());
}

TEST(IncludeLines, InCommentsAndStringsDoNotCount) {
    EXPECT_TRUE(included("// #include \"a.h\"\n/* \n#include \"b.h\"\n*/\nint x; /*\n#include \"c.h\"\n*/\n").empty());
    EXPECT_EQ(included("const char* s = \"/*\";\n#include \"a.h\"\n"), std::vector<std::string>{"a.h"});
    EXPECT_EQ(included("#error don't\n#include \"a.h\"\nint n = 1'000; // \"\n#include \"b.h\"\n"),
              (std::vector<std::string>{"a.h", "b.h"}));
    EXPECT_EQ(included("/* first */ #include \"a.h\"\n"), std::vector<std::string>{"a.h"});
}

TEST(IncludeLines, KnowTheirLine) {
    const auto includes = quoted_includes("/*\n*/\n\n#include \"a.h\"\n#include \"b.h\"\n");
    ASSERT_EQ(includes.size(), 2U);
    EXPECT_EQ(includes[0].line, 4);
    EXPECT_EQ(includes[1].line, 5);
}

TEST(IncludeLines, OfBrokenTextEndSomewhere) {
    for (const char* text :
         {"#include \"a.h", "#include \"\"", "#include", "#", "/*", "\"", "'\\", "#include \"a.h\n\""}) {
        EXPECT_TRUE(included(text).empty()) << text;
    }
}

TEST(Templates, ClosureHasEveryIncludeOnceUnderItsNameFromTheRoot) {
    const TemporaryFolder folder;
    test::write_sample_templates(folder);
    const std::vector<Template> closure = Templates(folder.path()).closure("scale.cuh");
    EXPECT_EQ(names_of(closure),
              (std::vector<std::string>{"args/scale.h", "ptx/lane.cuh", "ptx/math.cuh", "scale.cuh"}));
    EXPECT_NE(closure[1].text.find("#include \"ptx/math.cuh\""), std::string::npos) << closure[1].text;
    EXPECT_EQ(closure[3].text, folder.read("scale.cuh"));
}

TEST(Templates, AnIncludeBesideTheFileGoesBeforeOneAtTheRoot) {
    const TemporaryFolder folder;
    folder.write("f.cuh", "#include \"a/x.cuh\"\n");
    folder.write("a/x.cuh", "#include \"y.cuh\"\n#include \"../z.cuh\"\n#include \"a/y.cuh\"\n");
    folder.write("a/y.cuh", "// beside\n");
    folder.write("y.cuh", "// root\n");
    folder.write("z.cuh", "#include \"f.cuh\"\n");
    const std::vector<Template> closure = Templates(folder.path()).closure("f.cuh");
    EXPECT_EQ(names_of(closure), (std::vector<std::string>{"a/x.cuh", "a/y.cuh", "f.cuh", "z.cuh"}));
    EXPECT_EQ(closure[0].text, "#include \"a/y.cuh\"\n#include \"z.cuh\"\n#include \"a/y.cuh\"\n");
}

TEST(Templates, AMissingIncludeIsNamedWithItsFileAndLine) {
    const TemporaryFolder folder;
    folder.write("f.cuh", "\n#include \"gone.cuh\"\n");
    try {
        (void)Templates(folder.path()).closure("f.cuh");
        FAIL();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::compile);
        EXPECT_NE(std::string(error.what()).find("\"f.cuh\", line 2: \"gone.cuh\""), std::string::npos) << error.what();
    }
    EXPECT_THROW((void)Templates(folder.path()).closure("absent.cuh"), Error);
}

TEST(Templates, NothingOutsideTheFolderIsRead) {
    const TemporaryFolder folder;
    folder.write("secret.h", "");
    folder.write("root/f.cuh", "#include \"../secret.h\"\n");
    folder.write("root/g.cuh", "#include \"" + (folder.path() / "secret.h").string() + "\"\n");
    const Templates templates(folder.path() / "root");
    EXPECT_THROW((void)templates.closure("f.cuh"), Error);
    EXPECT_THROW((void)templates.closure("g.cuh"), Error);
    EXPECT_FALSE(templates.text("../secret.h"));
    EXPECT_TRUE(templates.text("f.cuh"));
}

TEST(Templates, DigestFollowsNamesAndTextsOnly) {
    const TemporaryFolder here;
    const TemporaryFolder there;
    test::write_sample_templates(here);
    test::write_sample_templates(there);
    there.write("unrelated.cuh", "int x;\n");
    const std::string before = digest(Templates(here.path()).closure("scale.cuh"));
    EXPECT_EQ(digest(Templates(there.path()).closure("scale.cuh")), before);
    there.write("ptx/math.cuh", there.read("ptx/math.cuh") + "int y;");
    EXPECT_NE(digest(Templates(there.path()).closure("scale.cuh")), before);
    EXPECT_NE(digest({{"a", "b"}}), digest({{"b", "a"}}));
}

TEST(Templates, EnvironmentChoosesTheFolder) {
    const TemporaryFolder folder;
    test::write_sample_templates(folder);
    {
        const ScopedVariable variable("SMLORA_TEMPLATE_DIR", folder.path().c_str());
        EXPECT_TRUE(Templates::from_environment().text("ptx/math.cuh"));
    }
    {
        const ScopedVariable variable("SMLORA_TEMPLATE_DIR", nullptr);
        EXPECT_FALSE(Templates::from_environment().text("ptx/math.cuh"));
    }
    {
        const ScopedVariable variable("SMLORA_TEMPLATE_DIR", "");
        EXPECT_FALSE(Templates::from_environment().text("ptx/math.cuh"));
    }
}

TEST(Templates, AFolderThatIsNoneIsRefused) {
    const ScopedVariable variable("SMLORA_TEMPLATE_DIR", "/nowhere/at/all");
    try {
        (void)Templates::from_environment();
        FAIL();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::io);
        EXPECT_NE(std::string(error.what()).find("SMLORA_TEMPLATE_DIR"), std::string::npos);
        EXPECT_NE(std::string(error.what()).find("/nowhere/at/all"), std::string::npos);
    }
}

TEST(Templates, EmbeddedOnesEqualTheFilesOfTheSourceTree) {
    const Templates embedded = Templates::embedded();
    const Templates files(SMLORA_KERNEL_TEMPLATES);
    ASSERT_EQ(embedded.names(), files.names());
    for (const std::string& name : files.names()) {
        EXPECT_EQ(embedded.text(name), files.text(name)) << name;
    }
}

}  // namespace
}  // namespace smlora::jit
