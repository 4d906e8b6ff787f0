"""Public ids of messages, and the sequence numbers behind them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.model import message_id, message_seq

LAST = 2**31 - 2


@given(stream=st.integers(1, 2**40), seq=st.integers(1, LAST))
def test_message_ids(stream: int, seq: int) -> None:
    """Every sequence number has its own public id, from which it is found again."""
    public = message_id(stream, seq)
    assert 1 <= public <= 2**31 - 1
    assert message_seq(stream, public) == seq


@given(stream=st.integers(1, 2**40), public=st.integers(-(2**40), 2**40))
def test_public_ids(stream: int, public: int) -> None:
    """Every public id is that of one sequence number, or of none."""
    seq = message_seq(stream, public)
    assert 0 <= seq <= LAST
    if 1 <= public <= 2**31 - 1:
        assert message_id(stream, seq) == public
    else:
        assert seq == 0
