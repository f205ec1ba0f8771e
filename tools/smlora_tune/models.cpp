// smlora-tune models: the models that --model knows.
#include "smlora_tune/command.hpp"
#include "smlora_tune/output.hpp"
#include "smlora_tune/table.hpp"

#include "models/model_table.hpp"

#include <fmt/format.h>

#include <memory>

namespace smlora::tool {
namespace {

constexpr const char* models_footer =
    R"(--model also takes the names of Hugging Face repositories, such as Qwen/Qwen3-30B-A3B or deepseek-ai/DeepSeek-R1,
in upper or lower case. For any other model, give its config.json to --config.

Example:
  smlora-tune models)";

ExitCode run_models(const CommonOptions& common) {
    nlohmann::ordered_json document = json_document("models");
    document["models"] = nlohmann::ordered_json::array();
    Table table({{"model"},
                 {"experts", Align::right},
                 {"per token", Align::right},
                 {"hidden", Align::right},
                 {"intermediate", Align::right},
                 {"weights"},
                 {"bias"},
                 {"activation"}});
    for (const models::ModelShape& model : models::known_models()) {
        document["models"].push_back({{"name", model.name},
                                      {"num_experts", model.num_experts},
                                      {"top_k", model.top_k},
                                      {"hidden_size", model.hidden_size},
                                      {"intermediate_size", model.intermediate_size},
                                      {"weight_layout", name(model.weight_layout)},
                                      {"bias", model.bias},
                                      {"activation", name(*model.activation)}});
        table.add({model.name, std::to_string(model.num_experts), std::to_string(model.top_k),
                   std::to_string(model.hidden_size), std::to_string(model.intermediate_size),
                   std::string(name(model.weight_layout)), model.bias ? "yes" : "no",
                   std::string(name(*model.activation))});
    }
    if (common.json) {
        print_json(document);
    } else {
        write_results(table.text());
    }
    return ExitCode::ok;
}

}  // namespace

void add_models(CLI::App& app, Run& run) {
    auto common = std::make_shared<CommonOptions>();
    CLI::App* sub = app.add_subcommand("models", "List the models that are known by name");
    sub->footer(models_footer);
    add_common_options(*sub, *common);
    sub->callback([common, &run] { run = [common] { return run_models(*common); }; });
}

}  // namespace smlora::tool
