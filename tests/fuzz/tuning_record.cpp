// Tuning records.
#include "harness.hpp"

#include "autotune/record_check.hpp"
#include "tuning/bundle.hpp"
#include "tuning/json_fields.hpp"
#include "tuning/record.hpp"
#include "util/hash.hpp"
#include "util/json.hpp"

namespace smlora::fuzz {
namespace {

using tuning::Json;
using tuning::Record;

void read(const std::string& text) {
    std::string why;
    const std::optional<Record> record = tuning::parse_record(text, why);
    if (!record) return require_message(why);
    require(why.empty(), "what is taken has no fault", why);
    const std::string written = tuning::record_text(*record);
    const std::optional<Record> again = tuning::parse_record(written, why);
    require(again.has_value(), "what is written can be read", why);
    require(tuning::record_text(*again) == written, "a record is written as it was read", written);
    require(tuning::Bundle::parse(tuning::bundle_text(record->name.gpu, {*record}), why).has_value(),
            "what is bundled can be read", why);
    for (const tuning::Tuning& tuning : record->tunings) {
        if (!autotune::RecordedWork::of(record->name, tuning, why)) require_message(why);
    }
}

/// With the checksum that its content has, which no change hits by chance.
std::string with_checksum(const std::string& text) {
    Json json = util::parse_json<Json>(text);
    if (!json.is_object()) return text;
    json.erase("xxh128");
    json["xxh128"] = util::xxh128_hex(json.dump());
    return json.dump();
}

}  // namespace
}  // namespace smlora::fuzz

int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
    const std::string text(smlora::fuzz::text_of(bytes, size));
    smlora::fuzz::read(text);
    smlora::fuzz::read(smlora::fuzz::with_checksum(text));
    return 0;
}
