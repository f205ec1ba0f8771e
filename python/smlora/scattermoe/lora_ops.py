"""The module with parameters; see smlora.scattermoe."""

from smlora.scattermoe import parallel_experts
from smlora.scattermoe.parallel_linear_lora import parallel_linear_lora


class ParallelExperts(parallel_experts.ParallelExperts):
    """As its base, with adapters that are attached from outside: lora_A [E * R, input_size], lora_B [output_size, E * R]."""

    def __init__(self, num_experts, input_size, output_size, bias=False):
        super().__init__(num_experts, input_size, output_size, bias)
        self.clear_lora()

    def set_lora(self, lora_A, lora_B, scaling):
        self._lora_A, self._lora_B, self._lora_scaling = lora_A, lora_B, scaling

    def clear_lora(self):
        self._lora_A, self._lora_B, self._lora_scaling = None, None, None

    def forward(self, inputs, k, sorted_expert_idxs, sorted_scattered_idxs, expert_offsets, gates=None,
                grouped_in=False, grouped_out=False):
        scaling = 1.0 if self._lora_scaling is None else self._lora_scaling
        return parallel_linear_lora(
            inputs, self.weight.permute(0, 2, 1), k, sorted_expert_idxs, sorted_scattered_idxs, expert_offsets,
            lora_A=self._lora_A, lora_B=self._lora_B, scaling=scaling, expert_biases=self.bias, gates=gates,
            grouped_in=grouped_in, grouped_out=grouped_out
        )
