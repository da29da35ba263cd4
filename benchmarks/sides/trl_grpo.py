"""TRL's side of training: `GRPOTrainer`, stopped after each optimiser step for the next command.

Settings: model, prompts, group_size, max_tokens, temperature, rates (learning rates by step), config (more of
`GRPOConfig`), dtype of the weights, threads, optionally lengths (of a batch's completions), family and indices (of the
prompts in a reasoning-gym family, that scores them). Commands: {"steps": n}, {"save": folder}.
"""

import tempfile
import time
import zlib

import talk
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, LogitsProcessor, LogitsProcessorList, TrainerCallback
from trl import GRPOConfig, GRPOTrainer


def main():
    given = talk.settings()
    torch.set_num_threads(given["threads"])
    tokenizer = AutoTokenizer.from_pretrained(given["model"])
    model = AutoModelForCausalLM.from_pretrained(given["model"], dtype=getattr(torch, given["dtype"]))
    model.to(given.get("device", "cpu"))
    indices = given.get("indices") or range(len(given["prompts"]))
    rows = [
        {"prompt": [{"role": "user", "content": prompt}], "index": index}
        for prompt, index in zip(given["prompts"], indices, strict=True)
    ]
    rates = given["rates"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rates[min(step, len(rates) - 1)])
    if given.get("lengths"):
        force_lengths(model, given["lengths"], tokenizer.eos_token_id)
    turns = InTurn(tokenizer)
    trainer = Timed(
        model=model,
        processing_class=tokenizer,
        args=config(given),
        train_dataset=Dataset.from_list(rows),
        reward_funcs=reward_of(given, tokenizer.eos_token_id),
        optimizers=(optimizer, schedule),
        callbacks=[turns],
    )
    turns.trainer = trainer
    trainer.train()


def config(given):
    """What makes it do the same work as ours; `given["config"]` is what may be tuned."""
    return GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        num_generations=given["group_size"],
        max_completion_length=given["max_tokens"],
        temperature=given["temperature"],
        max_steps=len(given["rates"]),
        epsilon=0.2,
        epsilon_high=0.28,
        beta=0.0,
        loss_type="dapo",
        scale_rewards="none",
        max_grad_norm=1.0,
        shuffle_dataset=False,
        report_to="none",
        logging_strategy="no",
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=given.get("device", "cpu") == "cpu",
        **given["config"],
    )


def reward_of(given, end):
    """The reward function: a number that the text gives, or what reasoning-gym says of replies that have ended."""
    if not given.get("family"):
        return lambda completions, **kwargs: [zlib.crc32(c[0]["content"].encode()) / 2**32 for c in completions]
    import reasoning_gym

    items = reasoning_gym.create_dataset(given["family"], size=max(given["indices"]) + 1, seed=0)

    def score(completions, completion_ids, index, **kwargs):
        scored = zip(completions, completion_ids, index, strict=True)
        return [float(items.score_answer(c[0]["content"].strip(), items[i])) * (t[-1] == end) for c, t, i in scored]

    return score


def force_lengths(model, lengths, end):
    """Have `generate` end row b of a batch after lengths[b] tokens, and no sooner."""
    generate = model.generate
    ends = torch.tensor(lengths, device=model.device)

    class Forced(LogitsProcessor):
        def __init__(self, start):
            self.start = start

        def __call__(self, input_ids, scores):
            last = ends[: len(scores)] == input_ids.shape[1] - self.start + 1
            scores[:, end] = float("-inf")
            scores[last] = float("-inf")
            scores[last, end] = 0.0
            return scores

    def forced(**inputs):
        start = inputs["input_ids"].shape[1]
        return generate(**inputs, logits_processor=LogitsProcessorList([Forced(start)]))

    model.generate = forced


class Timed(GRPOTrainer):
    """Says how long sampling took and how much was sampled."""

    sampling_s = 0.0
    tokens = 0

    def _generate_single_turn(self, *args, **kwargs):
        began = time.perf_counter()
        completions, logprobs = super()._generate_single_turn(*args, **kwargs)
        self.sampling_s += time.perf_counter() - began
        self.tokens += sum(map(len, completions))
        return completions, logprobs

    def _calculate_rewards(self, *args, **kwargs):
        rewards = super()._calculate_rewards(*args, **kwargs)
        self.reward = rewards.mean().item()
        return rewards


class InTurn(TrainerCallback):
    """Follows commands between steps."""

    def __init__(self, tokenizer):
        self.tokenizer, self.trainer, self.left = tokenizer, None, 0

    def on_train_begin(self, args, state, control, **kwargs):
        talk.answer(versions=talk.versions("torch", "trl", "transformers"))
        self.follow(kwargs["model"])

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.left -= 1
        if self.left == 0:
            trainer = self.trainer
            talk.answer(sampling_s=trainer.sampling_s, tokens=trainer.tokens, reward=trainer.reward)
            trainer.sampling_s, trainer.tokens = 0.0, 0
            self.follow(model)

    def follow(self, model):
        while "steps" not in (command := talk.command()):
            model.save_pretrained(command["save"])
            self.tokenizer.save_pretrained(command["save"])
            talk.answer()
        self.left = command["steps"]


if __name__ == "__main__":
    main()
