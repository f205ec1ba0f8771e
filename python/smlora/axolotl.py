"""smlora as a plugin of axolotl, which needs nothing but a line in the settings:

    plugins:
      - smlora.axolotl.SmloraPlugin"""

from axolotl.integrations.base import BasePlugin

from smlora.transformers import register
from smlora.transformers._experts import experts_forward
from smlora.transformers._names import DEEP_EP_NAME, NAME

_EXPERT_PARALLEL = "ExpertParallelPlugin"


class SmloraPlugin(BasePlugin):
    """Registers smlora and has it compute the experts of the model, with the adapters of lora_target_parameters inside. Works
    beside KernelsPlugin, unless that is to compute them, and after ExpertParallelPlugin, as what runs between DeepEP's dispatch
    and its combine. Settings that cannot be followed are ValueError, which names them."""

    def pre_model_load(self, cfg):
        for switch in ("use_scattermoe", "use_sonicmoe"):
            if cfg.get(switch):
                raise ValueError(
                    f"{switch}: expected it off with smlora.axolotl.SmloraPlugin, which computes the experts itself, "
                    f"got {cfg.get(switch)}"
                )
        register()
        cfg.experts_implementation = NAME if not (cfg.get("expert_parallel_size") or 1) > 1 else _behind_deep_ep(cfg)


def _behind_deep_ep(cfg):
    """The implementation to take with axolotl's expert parallelism."""
    names = [str(name).rpartition(".")[2] for name in cfg.get("plugins") or []]
    if _EXPERT_PARALLEL in names and names.index(_EXPERT_PARALLEL) > names.index(SmloraPlugin.__name__):
        raise ValueError(
            f"plugins: expected {_EXPERT_PARALLEL} before smlora.axolotl.SmloraPlugin, as it chooses what computes the experts "
            "as well, got it after"
        )
    if not str(cfg.get("experts_implementation")).startswith("deep_ep"):
        return NAME  # without DeepEP, of which axolotl has warned, experts are not spread
    from axolotl.integrations.expert_parallel import experts_fn

    def deep_ep_smlora(module, hidden_states, top_k_index, top_k_weights):
        return experts_fn._deep_ep_forward(module, hidden_states, top_k_index, top_k_weights, kernel_name=NAME)

    experts_fn._LOCAL_KERNELS[NAME] = experts_forward
    experts_fn.REGISTRY[DEEP_EP_NAME] = deep_ep_smlora
    experts_fn.register_all()
    return DEEP_EP_NAME
