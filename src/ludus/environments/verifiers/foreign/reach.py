"""A client of verifiers before 0.4 whose model is the rollout's: chat completions go over the line, without a socket."""

# mypy: disable-error-code="import-not-found,misc"
# verifiers is installed where this runs, not where it is checked.

from __future__ import annotations

from typing import Any

from .speaking import Speaker


class Reach:
    """Stands for an `openai.AsyncOpenAI` of the rollout's address, which is made once somebody asks for more than chat
    completions."""

    def __init__(self, speaker: Speaker) -> None:
        self.speaker = speaker
        self.base_url = speaker.base_url
        self.made: Any = None

    def __getattr__(self, name: str) -> Any:
        if name in ("speaker", "base_url", "made"):  # a copy that has none of its own yet
            raise AttributeError(name)
        if self.made is None:
            import httpx
            from openai import AsyncOpenAI

            http = httpx.AsyncClient(trust_env=False, verify=False, timeout=None)
            given: dict[str, Any] = {"base_url": self.base_url, "api_key": self.speaker.api_key, "http_client": http}
            self.made = AsyncOpenAI(**given, max_retries=0)
        return getattr(self.made, name)

    async def complete(self, request: dict[str, Any]) -> Any:
        """A `ChatCompletion`. Raises what `AsyncOpenAI` would."""
        import httpx
        from openai.types.chat import ChatCompletion

        status, answer = await self.speaker.complete(request)
        if status == 200:
            return ChatCompletion.model_validate(answer)
        asked = httpx.Request("POST", f"{self.base_url}/chat/completions")
        raise self._make_status_error_from_response(httpx.Response(status, json=answer, request=asked))

    async def close(self) -> None:
        """The rollout is over."""
        if self.made is not None:
            await self.made.close()


def client_class() -> Any:
    """verifiers' client of chat completions, over the line where it has a `Reach`; it also sees when it is our model
    whose context is full."""
    from openai import BadRequestError
    from verifiers.clients import openai_chat_completions_client as module
    from verifiers.errors import OverlongPromptError

    name = "post_chat_completion_with_routed_experts_sidecar"
    if (post := getattr(module, name, None)) is not None:  # else it asks the client itself, and goes over HTTP

        async def post_over_line(client: Any, path: str, *, body: Any, **options: Any) -> Any:
            return await (
                client.complete(body) if isinstance(client, Reach) else post(client, path, body=body, **options)
            )

        setattr(module, name, post_over_line)

    class Client(module.OpenAIChatCompletionsClient):
        async def get_native_response(self, *args: Any, **kwargs: Any) -> Any:
            try:
                return await super().get_native_response(*args, **kwargs)
            except BadRequestError as error:
                if "no room" in str(error):
                    raise OverlongPromptError(str(error)) from error
                raise

    return Client
