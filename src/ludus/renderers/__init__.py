"""Messages <-> token ids: tokenizers, chat templates, and the renderer that extends a recording turn by turn."""
