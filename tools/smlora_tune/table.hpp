// Columns of text.
#pragma once

#include <string>
#include <vector>

namespace smlora::tool {

enum class Align { left, right };

/// A table without rules: a heading, rows, columns as wide as their widest cell and two blanks between them.
class Table {
 public:
    struct Column {
        std::string heading;
        Align align = Align::left;
    };

    explicit Table(std::vector<Column> columns);

    /// As many cells as there are columns. A cell may hold ANSI codes; they take no width.
    void add(std::vector<std::string> cells);

    [[nodiscard]] std::string text() const;

 private:
    std::vector<Column> columns_;
    std::vector<std::vector<std::string>> rows_;
};

}  // namespace smlora::tool
