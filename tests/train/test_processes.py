"""What processes tell each other, in one process; several of them are in tests/multiprocess."""

from vididi_jax.train import processes


def test_a_message_of_several_pieces_arrives_whole(monkeypatch):
    sent = []

    def send(array):
        sent.append(array.copy())
        return array

    def receive(array):
        found = sent.pop(0)
        assert found.shape == array.shape and found.dtype == array.dtype and found.nbytes <= 8
        return found

    monkeypatch.setattr(processes, 'PIECE', 7)
    outcome = ({'a': list(range(50))}, None)
    for function, given in ((send, outcome), (receive, None)):
        monkeypatch.setattr(processes.multihost_utils, 'broadcast_one_to_all', function)
        assert processes._broadcast(given) == outcome
    assert not sent
