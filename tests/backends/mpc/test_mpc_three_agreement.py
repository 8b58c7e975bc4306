"""What three parties tell each other around a batch: garbage is refused, and nobody waits for one that is gone."""

import threading
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends.mpc.three_roles import Between, drawn
from backends.mpc.trio_roles import assisted
from edgeward.backends.mpc.deployment.agreement import ASSISTANT
from edgeward.backends.mpc.deployment.trio import agree_run, arrive, await_client, hear_command
from edgeward.backends.mpc.transport.failures import ChannelError, Failure
from edgeward.backends.mpc.transport.meter import Meter
from edgeward.backends.mpc.transport.pair import local_pair
from edgeward.core.errors import EdgewardError
from patience import PATIENCE, SOON

pytest_plugins = ["backends.mpc.deployment_fixtures"]
STOP, GO = 0, 1
WORDS = st.tuples(st.integers(0, 2**64 - 1) | st.integers(0, 3), st.integers(0, 2**64 - 1) | st.integers(0, 3))
FUZZ = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def pair():
    return local_pair(timeout=PATIENCE, meters=(Meter(), Meter()))


def end(*channels):
    """End all at once: each waits a moment for its other end."""
    threads = [threading.Thread(target=channel.abort) for channel in channels]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.fixture
def trio():
    """Return the server's channels to client and assistant, and the other ends of both."""
    (client, far_client), (other, far_other) = pair(), pair()
    yield client, other, far_client, far_other
    end(client, other, far_client, far_other)


def said(channel, label, *words):
    channel.send(np.array(words, np.uint64), label)


@FUZZ
@given(client_word=WORDS, other_word=WORDS, count=st.integers(0, 3))
def test_only_one_word_said_to_both_at_the_right_place_is_heard(client_word, other_word, count):
    (client, far_client), (other, far_other) = pair(), pair()
    said(far_client, "next", *client_word)
    said(far_other, "heard", *other_word)
    good = client_word == other_word and client_word in ((STOP, count), (GO, count))
    if good:
        assert hear_command(client, other, count, PATIENCE) == client_word[0]
        assert far_other.receive((2,), np.uint64, "heard").tolist() == list(client_word)
    else:
        with pytest.raises(ChannelError) as caught:
            hear_command(client, other, count, PATIENCE)
        assert caught.value.reason is Failure.DISAGREEMENT
    end(client, other, far_client, far_other)


@FUZZ
@given(content=st.binary(max_size=80), label=st.sampled_from(["next", "heard", "agreed", "x"]), late=st.booleans())
def test_messages_of_another_kind_end_the_wait(content, label, late):
    (client, far_client), (other, far_other) = pair(), pair()
    speaker, fitting = (far_other, "heard") if late else (far_client, "next")
    speaker.send(np.frombuffer(content, np.uint8), label)
    if late:
        said(far_client, "next", GO, 0)
    else:
        said(far_other, "heard", GO, 0)
    fits = label == fitting and np.frombuffer(content, np.uint64).tolist() == [GO, 0] if len(content) == 16 else False
    if not fits:
        with pytest.raises(ChannelError) as caught:
            hear_command(client, other, 0, PATIENCE)
        assert caught.value.reason in (Failure.OUT_OF_STEP, Failure.DISAGREEMENT)
    end(client, other, far_client, far_other)


@FUZZ
@given(theirs=st.binary(min_size=32, max_size=32), place=st.sampled_from([0, ASSISTANT]))
def test_another_plan_or_run_at_either_party_is_refused(plan, theirs, place):
    near, far = zip(pair(), pair(), strict=True)
    channels, ends = dict(zip((0, ASSISTANT), near, strict=True)), dict(zip((0, ASSISTANT), far, strict=True))

    def honest(number):
        end = ends[number]
        own = end.receive((32,), np.uint8, "agreed")
        end.send(np.frombuffer(theirs, np.uint8) if number == place else own, "agreed")

    threads = [threading.Thread(target=honest, args=(number,)) for number in ends]
    for thread in threads:
        thread.start()
    with pytest.raises(ChannelError) as caught:
        agree_run(channels, plan.plan, bytes(16))
    for thread in threads:
        thread.join()
    assert caught.value.reason is Failure.DISAGREEMENT
    end(*channels.values(), *ends.values())


@pytest.mark.parametrize("way", ["close", "abort"])
def test_who_waits_for_the_client_notices_at_once_that_the_third_party_is_gone(trio, way):
    client, other, _, far_other = trio
    threading.Timer(0.3, getattr(far_other, way)).start()
    start = time.monotonic()
    with pytest.raises(ChannelError) as caught:
        hear_command(client, other, 0, PATIENCE)
    assert time.monotonic() - start < SOON
    assert caught.value.reason in (Failure.FINISHED, Failure.ABORTED)


def test_a_silent_client_is_not_waited_for_without_end(trio):
    client, other, _, _ = trio
    with pytest.raises(ChannelError) as caught:
        hear_command(client, other, 0, 0.3)
    assert caught.value.reason is Failure.TIMED_OUT
    assert "client" in str(caught.value)


def test_the_third_party_may_have_heard_first(trio):
    client, other, far_client, far_other = trio
    said(far_other, "heard", GO, 2)
    threading.Timer(0.6, lambda: said(far_client, "next", GO, 2)).start()
    assert hear_command(client, other, 2, PATIENCE) == GO


def test_a_client_that_waits_for_the_assistant_notices_that_the_server_is_gone(trio):
    server, assistant, far_server, _ = trio
    threading.Timer(0.3, far_server.abort).start()
    start = time.monotonic()
    with pytest.raises(ChannelError) as caught:
        arrive(server, assistant, PATIENCE)
    assert time.monotonic() - start < SOON
    assert caught.value.reason is Failure.ABORTED


def test_a_server_waits_for_the_client_to_have_met_the_assistant(trio):
    server, assistant, far_server, far_assistant = trio
    far_assistant.send(np.ones(1, np.uint8), "welcome")
    arrive(server, assistant, PATIENCE)
    await_client(far_server)


@pytest.mark.slow
def test_altered_bytes_without_tls_end_in_an_error_of_ours_or_in_a_wrong_answer_and_never_in_a_wait(plan):
    draws = np.random.default_rng(3)
    most = {
        ("client", "server"): (2000, 10000),
        ("server", "assistant"): (8000, 2500),
        ("client", "assistant"): (9000, 120),
    }
    for i in range(36):
        link, wires = list(most)[i % 3], []
        after = int(draws.integers(most[link][1 - i % 2]))

        def through(role, peer, port, link=link, after=after, i=i, wires=wires):
            if (role, peer) != link:
                return port
            wires.append(Between(port, after, "alter", caller=i % 2 == 1))
            return wires[0].port

        terms = {"patience": 2.0, "timeout": 2.0}
        done = assisted(None, plan, drawn(3), through=through, client=terms, server=terms, assistant=terms)
        assert all(not isinstance(one, Exception) or isinstance(one, EdgewardError) for one in done.values()), done
