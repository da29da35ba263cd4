"""An OpenAI-compatible server that answers at once: the model of those who can't be given one in process.

With tools in the request it calls the first of them until it has been answered `CALLS` times, then it says what it says
without tools. Settings: none. It answers {"port": ...}, and serves until its input ends.
"""

import asyncio
import json
import sys

import talk

CALLS, TEXT, ARGUMENTS = 4, "50", '{"place": "north"}'


def reply_to(request):
    """The assistant's message, and its finish reason."""
    answered = sum(message["role"] == "tool" for message in request["messages"])
    if not request.get("tools") or answered >= CALLS:
        return {"role": "assistant", "content": TEXT}, "stop"
    call = {"name": request["tools"][0]["function"]["name"], "arguments": ARGUMENTS}
    calls = [{"index": 0, "id": f"call_{answered}", "type": "function", "function": call}]
    return {"role": "assistant", "content": None, "tool_calls": calls}, "tool_calls"


def body_of(request):
    """The response: JSON, or server-sent events."""
    message, finish = reply_to(request)
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    head = {"id": "x", "created": 0, "model": request["model"]}
    if not request.get("stream"):
        choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
        return "application/json", json.dumps(
            {**head, "object": "chat.completion", "choices": [choice], "usage": usage}
        )
    head["object"] = "chat.completion.chunk"
    spoken = {"index": 0, "delta": message, "finish_reason": None}
    ended = {"index": 0, "delta": {}, "finish_reason": finish}
    events = [{**head, "choices": [spoken]}, {**head, "choices": [ended]}, {**head, "choices": [], "usage": usage}]
    return "text/event-stream", "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"


async def serve(reader, writer):
    """One connection."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
            content = await reader.readexactly(int(fields.get("content-length", 0)))
            kind, body = (
                body_of(json.loads(content)) if content else ("application/json", '{"object":"list","data":[]}')
            )
            data = body.encode()
            head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n\r\n"
            writer.write(head.encode() + data)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 24, backlog=4096)
    talk.answer(port=server.sockets[0].getsockname()[1])
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
