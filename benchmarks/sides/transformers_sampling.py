"""transformers' side of sampling: `generate` on one left-padded batch, or its continuous batching.

Settings: model, dtype, threads, device, continuous. Commands: {"prompts": [ids...], "max_tokens": n}.
"""

import talk
import torch
from transformers import AutoModelForCausalLM, GenerationConfig, LogitsProcessor, LogitsProcessorList


class Logprobs(LogitsProcessor):
    """Log-probabilities of what was sampled, without keeping the scores of all steps."""

    def __init__(self):
        self.before, self.found = None, []

    def __call__(self, input_ids, scores):
        if self.before is not None:
            self.found.append(self.before.gather(1, input_ids[:, -1:]))
        self.before = scores.log_softmax(-1)
        return scores


def main():
    given = talk.settings()
    torch.set_num_threads(given["threads"])
    model = AutoModelForCausalLM.from_pretrained(given["model"], dtype=getattr(torch, given["dtype"]))
    model.to(given.get("device", "cpu")).eval()
    talk.answer(versions=talk.versions("torch", "transformers"))
    while True:
        command = talk.command()
        sample = continuous if given.get("continuous") else batch
        talk.answer(tokens=sample(model, command["prompts"], command["max_tokens"]))


def config(max_tokens):
    """Temperature 1 over the whole vocabulary, and no end but the limit."""
    return GenerationConfig(max_new_tokens=max_tokens, do_sample=True, top_k=0, pad_token_id=0, eos_token_id=None)


@torch.inference_mode()
def batch(model, prompts, max_tokens):
    """Tokens sampled."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts], device=model.device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    model.generation_config.eos_token_id = None  # the model's own would be taken where ours is None
    logprobs = Logprobs()
    processors = LogitsProcessorList([logprobs])
    out = model.generate(
        input_ids=ids, attention_mask=mask, generation_config=config(max_tokens), logits_processor=processors
    )
    assert len(logprobs.found) == max_tokens - 1
    return out[:, longest:].numel()


def continuous(model, prompts, max_tokens):
    """Tokens sampled."""
    from transformers.generation.configuration_utils import ContinuousBatchingConfig

    settings = config(max_tokens)
    settings.eos_token_id = -1
    batching = ContinuousBatchingConfig(return_logprobs=True)
    outputs = model.generate_batch(
        prompts, generation_config=settings, continuous_batching_config=batching, progress_bar=False
    )
    assert all(output.logprobs for output in outputs.values())
    return sum(len(output.generated_tokens) for output in outputs.values())


if __name__ == "__main__":
    main()
