"""What the recorder answers: an episode that ended, whole or not, or a refusal."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from rclpy.node import Node
from std_srvs.srv import Trigger


class RecordingRefused(ValueError):
    """Why an episode cannot begin, or be ended, now."""


class Ended(NamedTuple):
    """
    An episode that was recorded.

    :param text: where it is and what is in it.
    :param problems: what it promised and has not; empty where all is well.
    """

    text: str
    problems: tuple[str, ...]

    def __str__(self) -> str:
        """Return what is missing first."""
        return '; '.join([*self.problems, *([f'kept and marked: {self.text}'] if self.problems
                                            else [self.text])])


def answering(node: Node, work: Callable[[], str | Ended]
              ) -> Callable[..., Trigger.Response]:
    """Return a service callback that answers with the text of the work, or of its refusal."""
    def serve(_: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            done = work()
            response.success = not (isinstance(done, Ended) and done.problems)
            response.message = str(done)
        except RecordingRefused as error:
            node.get_logger().error(str(error))
            response.success, response.message = False, str(error)
        return response
    return serve
