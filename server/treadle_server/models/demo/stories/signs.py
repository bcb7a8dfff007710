"""Whether a number of a story adds to what there is or takes from it."""

import re

from treadle_server.models.demo.stories.quantities import Quantity

LOSS = re.compile(
    r"\b(?:destroy\w*|kill\w*|steals?|stole|crash\w*|blew|collapsed|scrapped|cancel\w*|reject\w*|"
    r"(?:is|are|were|was|been) (?:taken|used|occupied|reserved|booked|borrowed|loaned|checked out|rented)|"
    r"(?:he|she|they|i|we|and) hands?|hands? out|handed|"
    r"giv(?:es?|ing)|gave|los(?:es?|ing|t)|sells?|sold|eats?|ate|eaten|spen(?:ds?|t)|"
    r"spending|uses?|used|donat\w+|remov\w+|took|takes? (?:away|out|off)|"
    r"broken?|breaks?|broke|thr(?:ows?|ew)|withdr\w+|lends?|lent|drops?|dropped|burn\w*|"
    r"dr(?:ink|inks|ank)|cuts?|leak\w*|die[sd]?|fl(?:y|ies|ew) away|"
    r"get(?:s)? off|got off|rotten|missing|absent|empty|damaged|stolen|fewer|less|minus|"
    r"leaves?|depart\w*|left (?:the|and)|deduct\w*|subtract\w*|quit|fell|"
    r"tak(?:es|ing) away|taken (?:off|away|out)|knocked off|falls?|sank|s[iu]nks|went down|"
    r"goes down|go down|given|goes to|go to|went to|mails?|sent|sends|ships?|shipped|"
    r"expired?|wilted|sick|defective|spoil\w*|cracked|discard\w*|coupon|discount|refund\w*|"
    r"costs? (?:him|her|them)|melt\w*|evaporat\w*|pays? for|owes?|rent|bills?|expenses?)\b"
)
GAIN = re.compile(
    r"\b(?:buys?|bought|gets?|got|receiv\w+|earns?|earned|finds?|found|picks?|picked|"
    r"collect\w*|adds?|added|bakes?|baked|deposit\w*|arriv\w+|joins?|joined|more|"
    r"makes?|made|wins?|won|saves?|saved|plus|another|returns?|returned|grows?|grew|"
    r"produc\w+|and also|orders?|ordered|has|have|had|gets? on|got on|board\w*|purchas\w+|"
    r"delivered|"
    r"gives? (?:him|her|me|them)|gave (?:him|her|me|them)|gain\w*|rose by|rises?|climb\w*|"
    r"(?:came|come|comes|brought|given|handed) back|went up|goes up|increase\w*|come|comes|came|"
    r"restock\w*|extra)\b"
)
MADE = re.compile(
    r"\b(?:makes?|made|bakes?|baked|builds?|built|knits?|knitted|sews?|sewed|sewn|picks?|picked|collect\w*|"
    r"produc\w+|harvest\w*|catch(?:es)?|caught|buys?|bought|cooks?|cooked|prints?|printed|paints?|painted|"
    r"lays?|laid|writes?|wrote|plants?|planted|gathers?|gathered|earns?|earned|saves?|saved|folds?|folded|"
    r"finds?|found|receiv\w+|assembl\w+|brews?|brewed|carv\w+|mines?|mined|pack\w*|deliver\w*)\b"
)
BUY = re.compile(
    r"\b(?:buys?|bought|purchas\w+|pays?|paid|spen(?:ds?|t)|costs?|orders?|ordered|subscri\w+)\b"
)
HELD = re.compile(
    r"\b(?:had|has|have|starts?|started|salary|income|pension|paycheck|saved|saves|earn\w*|"
    r"balance|budget|got|receiv\w+|withdr\w+|wallet|account|makes|gets|revenue|sells?|sold|"
    r"brings?|brought|allowance|gift|with)\b"
)
INCOME = re.compile(r"\b(?:earn\w*|salary|wages?|income|gross|paycheck|makes)\b")
CUTS = re.compile(
    r"\b(?:discount\w*|off|reduction|reduced|sale|cheaper|decreas\w+|drops?|dropped|fell|"
    r"falls?|depreciat\w+|rebate|deduct\w*|shr[iau]nk\w*|markdown|marked down|coupon|"
    r"commission|withheld|lower|down)\b"
)
GROWS = re.compile(
    r"\b(?:tax|vat|tip|tips|gratuity|service|interest|increas\w+|markup|marked up|"
    r"raise[sd]?|raise|grow\w*|grew|rises?|rose|more|surcharge|fee|bonus|gain\w*|profit|"
    r"extra|add\w*|higher|up)\b"
)


def near_words(item: Quantity) -> str:
    """The words around a share, within its own clause."""
    before = re.split(r"[,;.]|\band\b|\bthen\b", item.before)[-1]
    after = re.split(r"[,;.?]|\band\b|\bthen\b|\bbut\b", item.after)[0]
    return f"{' '.join(before.split()[-6:])} | {' '.join(after.split()[:6])}"


def direction_of(item: Quantity, *, income: bool) -> int:
    """1 for what is added, -1 for what is taken off, 0 when no word says so."""
    before, _, after = near_words(item).partition("|")
    for text in (after, before, item.before):
        if CUTS.search(text) or (income and re.search(r"\btax(?:es)?\b", text)):
            return -1
        if GROWS.search(text):
            return 1
    return 0


def cue_of(text: str) -> int:
    """The sign of the last verb that gains or loses something; 0 without one."""
    cues = [(match.start(), -1) for match in LOSS.finditer(text)] + [
        (match.start(), 1) for match in GAIN.finditer(text)
    ]
    return max(cues)[1] if cues else 0


SHARES = re.compile(
    r"\b(?:shar(?:e|es|ed|ing)|split|splits|splitting|divid(?:e|es|ed|ing)|distribut\w+|"
    r"equally|evenly|hands? out|packs?|packed|puts? them|arrang\w+|cuts?)\b"
)
