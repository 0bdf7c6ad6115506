"""The same instruction in other words, or with typing errors."""

from __future__ import annotations

from collections.abc import Mapping
import re

from ros2_lstm_policy.sim.perturb.settings import PerturbConfig

SYNONYMS: Mapping[str, tuple[str, ...]] = {
    'pick up': ('grab', 'take', 'lift'), 'pick': ('grab', 'take', 'lift'),
    'put': ('place', 'set'), 'place': ('put', 'set'), 'open': ('pull open',), 'close': ('shut',),
    'turn on': ('switch on',), 'turn off': ('switch off',), 'push': ('shove', 'slide'),
    'stack': ('pile',), 'in the basket': ('into the basket',), 'in the tray': ('into the tray',),
    'alphabet soup': ('can of alphabet soup', 'soup can'), 'butter': ('stick of butter',),
    'milk': ('carton of milk', 'milk carton'),
    'orange juice': ('carton of orange juice', 'juice carton'),
    'tomato sauce': ('can of tomato sauce', 'tomato can'),
    'ketchup': ('bottle of ketchup', 'ketchup bottle'),
    'cream cheese box': ('box of cream cheese',), 'cream cheese': ('box of cream cheese',),
    'salad dressing': ('bottle of dressing',), 'bbq sauce': ('barbecue sauce',),
    'chocolate pudding': ('box of chocolate pudding',), 'bowl': ('dish',), 'mug': ('cup',),
    'wine bottle': ('bottle of wine',), 'wine rack': ('bottle rack',), 'book': ('volume',),
    'moka pots': ('coffee makers',), 'moka pot': ('coffee maker',), 'stove': ('cooker', 'hob'),
    'frying pan': ('skillet',), 'cabinet': ('cupboard',), 'microwave': ('microwave oven',),
    'caddy': ('organizer',), 'compartment': ('section',), 'shelf': ('rack',)}
_PHRASES = re.compile(
    rf'\b({"|".join(sorted(map(re.escape, SYNONYMS), key=len, reverse=True))})\b', re.IGNORECASE)
_LETTERS = 'abcdefghijklmnopqrstuvwxyz'


def said(instruction: str, config: PerturbConfig, episode: str) -> str:
    """
    Return what is said instead of an instruction.

    :param episode: its name.
    """
    if config.synonyms:
        instruction = otherwise(instruction, config, episode)
    if config.typos:
        instruction = mistyped(instruction, config, episode)
    return instruction


def otherwise(instruction: str, config: PerturbConfig, episode: str) -> str:
    """Say a share of the known phrases in other words."""
    rng = config.rng(episode, 'synonyms')

    def replaced(found: re.Match[str]) -> str:
        if rng.random() >= config.synonyms:
            return found.group()
        return str(rng.choice(SYNONYMS[found.group().lower()]))

    return _PHRASES.sub(replaced, instruction)


def mistyped(instruction: str, config: PerturbConfig, episode: str) -> str:
    """Leave letters out, double them, exchange or replace them, each at a place of its own."""
    rng = config.rng(episode, 'typos')
    # from the last to the first, and never two that touch: each error stays one
    places = [i for i in range(len(instruction) - 1)
              if instruction[i].isalpha() and instruction[i + 1].isalpha()
              and instruction[i].lower() != instruction[i + 1].lower()]
    chosen: list[int] = []
    for place in rng.permutation(places):
        if len(chosen) < config.typos and all(abs(place - other) > 1 for other in chosen):
            chosen.append(int(place))
    for place in sorted(chosen, reverse=True):
        here, after = instruction[place], instruction[place + 1]
        other = str(rng.choice([c for c in _LETTERS if c != here.lower()]))
        error = str(rng.choice(['omit', 'double', 'exchange', 'replace']))
        wrong = {'omit': after, 'double': here + here + after, 'exchange': after + here,
                 'replace': other + after}[error]
        instruction = instruction[:place] + wrong + instruction[place + 2:]
    return instruction
