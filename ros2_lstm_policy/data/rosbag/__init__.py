"""rosbag2 in and out: the only room that knows the rosbags library."""

from ros2_lstm_policy.data.rosbag.find import find_bags
from ros2_lstm_policy.data.rosbag.format import BagLayout, EpisodeCut, EpisodeInfo, TopicNames
from ros2_lstm_policy.data.rosbag.reader import BagRecording, read_episodes
from ros2_lstm_policy.data.rosbag.writer import BagFile, EpisodeBagWriter, set_aside_unfinished

__all__ = ['BagFile', 'BagLayout', 'BagRecording', 'EpisodeBagWriter', 'EpisodeCut',
           'EpisodeInfo', 'TopicNames', 'find_bags', 'read_episodes',
           'set_aside_unfinished']
