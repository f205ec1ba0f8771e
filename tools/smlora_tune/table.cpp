#include "smlora_tune/table.hpp"

#include <algorithm>
#include <stdexcept>
#include <string_view>

namespace smlora::tool {
namespace {

/// Characters on the screen: UTF-8 continuation bytes and ANSI colour codes take none.
std::size_t width(std::string_view cell) {
    std::size_t columns = 0;
    for (std::size_t i = 0; i < cell.size(); ++i) {
        if (cell[i] == '\x1b') {
            i = std::min(cell.find('m', i), cell.size() - 1);
        } else if ((static_cast<unsigned char>(cell[i]) & 0xC0U) != 0x80U) {
            ++columns;
        }
    }
    return columns;
}

}  // namespace

Table::Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

void Table::add(std::vector<std::string> cells) {
    if (cells.size() != columns_.size()) throw std::logic_error("Table: a row with the wrong number of cells");
    rows_.push_back(std::move(cells));
}

std::string Table::text() const {
    std::vector<std::string> heading;
    std::vector<std::size_t> widths;
    for (const Column& column : columns_) {
        heading.push_back(column.heading);
        widths.push_back(width(column.heading));
    }
    for (const auto& row : rows_) {
        for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width(row[i]));
    }
    std::string result;
    const auto append = [&](const std::vector<std::string>& row) {
        for (std::size_t i = 0; i < row.size(); ++i) {
            const std::string padding(widths[i] - width(row[i]), ' ');
            if (columns_[i].align == Align::right) result += padding;
            result += row[i];
            if (i + 1 == row.size()) break;
            if (columns_[i].align == Align::left) result += padding;
            result += "  ";
        }
        result += '\n';
    };
    append(heading);
    for (const auto& row : rows_) append(row);
    return result;
}

}  // namespace smlora::tool
