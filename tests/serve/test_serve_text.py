import itertools

from hypothesis import example, given, settings
from hypothesis import strategies as st

from ludus.engine.fake import fake_tokenizer
from ludus.serve.completions import StreamedText

TOKENIZER = fake_tokenizer()
(END,) = TOKENIZER.encode("<|end|>")


def stream(ids, stop, cuts):
    text = StreamedText(TOKENIZER, frozenset([END]), stop)
    edges = sorted({0, *(cut % (len(ids) + 1) for cut in cuts), len(ids)})
    parts = [ids[start:end] for start, end in itertools.pairwise(edges)] or [[]]
    return [text.feed(part, last=number == len(parts)) for number, part in enumerate(parts, 1)]


@example(said=" aa", stop=["a", " aa"], cuts=[2])
@settings(max_examples=100, deadline=None)
@given(
    said=st.text("ab é🙂", max_size=20),
    stop=st.lists(st.text("ab ", min_size=1, max_size=3), max_size=2),
    cuts=st.lists(st.integers(0, 100), max_size=10),
)
def test_pieces_are_the_text_before_the_first_stop_string_however_it_is_cut(said, stop, cuts):
    pieces = stream([*TOKENIZER.encode(said), END], tuple(stop), cuts)
    ends = [at for s in stop if (at := said.find(s)) >= 0]
    assert "".join(pieces) == said[: min(ends, default=len(said))]


def test_half_a_character_at_the_very_end_is_given_as_what_it_is():
    assert "".join(stream(TOKENIZER.encode("🙂")[:2], (), [1])) == "\ufffd"
