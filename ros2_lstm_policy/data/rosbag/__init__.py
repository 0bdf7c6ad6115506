"""rosbag2 in and out: the only room that knows the rosbags library."""

from ros2_lstm_policy.data.rosbag.format import BagLayout, EpisodeInfo, TopicNames
from ros2_lstm_policy.data.rosbag.writer import BagFile, EpisodeBagWriter, set_aside_unfinished

__all__ = ['BagFile', 'BagLayout', 'EpisodeBagWriter', 'EpisodeInfo', 'TopicNames',
           'set_aside_unfinished']
