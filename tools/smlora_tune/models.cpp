// smlora-tune models: the models that --model knows, or what is read of a config.json.
#include "smlora_tune/command.hpp"
#include "smlora_tune/exit_code.hpp"
#include "smlora_tune/output.hpp"
#include "smlora_tune/table.hpp"

#include "models/hf_config.hpp"
#include "models/model_table.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

#include <memory>
#include <string>
#include <vector>

namespace smlora::tool {
namespace {

constexpr const char* models_footer =
    R"(--model also takes the names of Hugging Face repositories, such as Qwen/Qwen3-30B-A3B or deepseek-ai/DeepSeek-R1,
in upper or lower case. For any other model, give its config.json to --config; here it shows what is read of the file.

Examples:
  smlora-tune models
  smlora-tune models --config model/config.json)";

struct ModelsCommand {
    CommonOptions common;
    std::vector<std::string> configs;
};

std::vector<models::ModelShape> shapes_of(const std::vector<std::string>& configs) {
    if (configs.empty()) return models::known_models();
    std::vector<models::ModelShape> shapes;
    try {
        for (const std::string& config : configs) shapes.push_back(models::read_hf_config(config));
    } catch (const Error& error) {
        throw UsageError(error.what());
    }
    return shapes;
}

std::string activation_of(const models::ModelShape& model) {
    return model.activation ? std::string(name(*model.activation)) : "the model's own code";
}

ExitCode run_models(const ModelsCommand& command) {
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
    for (const models::ModelShape& model : shapes_of(command.configs)) {
        document["models"].push_back({{"name", model.name},
                                      {"num_experts", model.num_experts},
                                      {"top_k", model.top_k},
                                      {"hidden_size", model.hidden_size},
                                      {"intermediate_size", model.intermediate_size},
                                      {"weight_layout", name(model.weight_layout)},
                                      {"bias", model.bias},
                                      {"dtype", name(model.dtype)},
                                      {"gated", model.gated},
                                      {"activation", activation_of(model)},
                                      {"gate_layout", name(model.gate_layout)}});
        table.add({model.name, std::to_string(model.num_experts), std::to_string(model.top_k),
                   std::to_string(model.hidden_size), std::to_string(model.intermediate_size),
                   std::string(name(model.weight_layout)), model.bias ? "yes" : "no", activation_of(model)});
    }
    if (command.common.json) {
        print_json(document);
    } else {
        write_results(table.text());
    }
    return ExitCode::ok;
}

}  // namespace

void add_models(CLI::App& app, Run& run) {
    auto command = std::make_shared<ModelsCommand>();
    CLI::App* sub =
        app.add_subcommand("models", "List the models that are known by name, or show what a config.json says");
    sub->footer(models_footer);
    sub->add_option("--config", command->configs,
                    "Show this model instead, from its config.json or the folder that has one; repeatable")
        ->type_name("PATH")
        ->allow_extra_args(false);
    add_common_options(*sub, command->common);
    sub->callback([command, &run] { run = [command] { return run_models(*command); }; });
}

}  // namespace smlora::tool
