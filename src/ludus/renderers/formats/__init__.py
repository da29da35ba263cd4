"""How families of chat templates write a reply: reasoning, text and tool calls. One module per style.

Nothing here knows a model's name. Which format a template uses is found in `detect` by what it writes.
"""
