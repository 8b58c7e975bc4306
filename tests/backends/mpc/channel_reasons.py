"""Why a call on a channel failed, and how long the channels of the tests wait."""

import pytest

from edgeward.backends.mpc.transport.failures import ChannelError

PATIENCE = 5.0


def reason(call, *arguments):
    with pytest.raises(ChannelError) as caught:
        call(*arguments)
    return caught.value.reason
