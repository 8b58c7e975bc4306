"""Why a call on a channel failed."""

import pytest

from edgeward.backends.mpc.transport.failures import ChannelError


def reason(call, *arguments):
    with pytest.raises(ChannelError) as caught:
        call(*arguments)
    return caught.value.reason
