"""The examination of `demo:react`: questions by shape, written without sight of its rules."""

from datetime import datetime, timedelta
from functools import partial
from zoneinfo import ZoneInfo

from tests.e2e.answers import (
    Question,
    apart,
    clock,
    converted,
    date,
    hours,
    month,
    now_in,
    offset,
    weekday,
)
from tests.e2e.held_out_documents import CART, DOCUMENTS, line
from tests.e2e.held_out_refusals import PARTLY_UNKNOWN, UNKNOWN


def _number(shape: str, text: str, *numbers: float, before: tuple[str, ...] = ()) -> Question:
    return Question(shape, text, numbers=numbers, before=before)


_story = partial(_number, "story")
STORIES = (
    _story(
        "A baker makes 24 muffins in the morning and 36 in the afternoon. She sells 45 of them. "
        "How many muffins are left?",
        24 + 36 - 45,
    ),
    _story(
        "tom had 50 bucks. bought 3 burgers at 8.25 each and a coke for 2.50. how much does he have left",
        50 - 3 * 8.25 - 2.5,
    ),
    _story(
        "A library has 12 full shelves with 35 books on each. Then 128 books get borrowed. "
        "How many books remain on the shelves?",
        12 * 35 - 128,
    ),
    _story(
        "A train travels at 80 km/h for 2.5 hours and then at 60 km/h for 1.5 hours. "
        "What total distance does it cover?",
        80 * 2.5 + 60 * 1.5,
    ),
    _story("We are 7 friends and we share a bill of $182 equally. How much does each of us pay?", 182 / 7),
    _story(
        "Maria earns $18.50 an hour. Last week she worked 38 hours and this week 41. "
        "What did she earn in both weeks together?",
        18.5 * (38 + 41),
    ),
    _story(
        "Could you please help me: a parking garage has 4 floors, every floor has 65 spaces, and 197 cars "
        "are parked. How many spaces are free?",
        4 * 65 - 197,
    ),
    _story("Sam is 3 times as old as his sister, who is 7. How old will Sam be in 5 years?", 3 * 7 + 5),
    _story(
        "A box contains eight packs of pens, with twelve pens per pack. If the teacher hands out 70 pens, "
        "how many does she still have?",
        8 * 12 - 70,
    ),
    _story(
        "my car does 15 km per liter. fuel costs 1.80 per liter. how much is fuel for a 450 km trip",
        450 / 15 * 1.8,
    ),
    _story(
        "A farmer collected 360 eggs and packs them in cartons of a dozen. He sells each carton for $4. "
        "How much money does he make?",
        360 / 12 * 4,
    ),
    _story(
        "Anna read 45 pages on Monday, twice as many on Tuesday and 30 fewer than Tuesday on Wednesday. "
        "How many pages did she read in total?",
        45 + 90 + 60,
    ),
    _story(
        "A tank holds 900 liters. Water flows in at 25 liters per minute and leaks out at 10 liters per "
        "minute. How many minutes does it take to fill the empty tank?",
        900 / (25 - 10),
    ),
    _story(
        "Lucy saves 75 euros a month. After 8 months she buys a bike for 420 euros. "
        "How much is left of her savings?",
        75 * 8 - 420,
    ),
    _story(
        "Two pizzas are cut into 8 slices each. Five kids eat 3 slices each. How many slices are left over?",
        2 * 8 - 5 * 3,
    ),
    _story(
        "I bought 4 shirts at $19.99 and 2 pairs of jeans at $45. What did I pay altogether?",
        4 * 19.99 + 2 * 45,
    ),
    _story("Ben has 15 more stickers than Eva. Eva has 28. How many do they have together?", 28 + 28 + 15),
    _story(
        "A school orders 1,250 pencils. 15 classes get 60 pencils each, and the rest is put in storage. "
        "How many pencils go into storage?",
        1250 - 15 * 60,
    ),
    _story("A rope is 10 m long; I cut off 3 pieces of 1.2 m each. what remains, in meters?", 10 - 3 * 1.2),
    _story(
        "A bus starts with 18 passengers. At the first stop 7 get on and 3 get off, at the second stop "
        "12 get on and 9 get off. How many passengers are on the bus now?",
        18 + 7 - 3 + 12 - 9,
    ),
    _story(
        "Each of the 9 rooms needs 4 lamps and every lamp takes 2 bulbs. Bulbs come in packs of six. "
        "How many packs must we buy?",
        9 * 4 * 2 / 6,
    ),
    _story(
        "Half of the 64 students walk to school, a quarter take the bus, and the others are driven. "
        "How many are driven?",
        64 - 32 - 16,
    ),
    _story(
        "A phone plan costs 25 dollars a month plus 10 cents for each text. "
        "What's the bill for a month with 130 texts?",
        25 + 0.1 * 130,
    ),
    _story(
        "The average of 3 tests was 82. Test one was 75 and test two was 88. "
        "What was the score of test three?",
        3 * 82 - 75 - 88,
    ),
)

_chain = partial(_number, "chain")
CHAINS = (
    _chain("What is 17 times 23, minus 91?", 17 * 23 - 91),
    _chain("Add 145 and 355, then divide the result by 8.", (145 + 355) / 8),
    _chain("take 9, square it, subtract 6, then halve that", (9**2 - 6) / 2),
    _chain("Please multiply twelve by fifteen and add forty.", 12 * 15 + 40),
    _chain("What's the sum of 12, 19, 23 and 46?", 12 + 19 + 23 + 46),
    _chain("(48 + 52) * 3.5 - 17 = ?", (48 + 52) * 3.5 - 17),
    _chain("square root of 1764?", 42),
    _chain("Subtract 3,457 from 10,000 and then divide what you get by 3.", (10_000 - 3457) / 3),
    _chain("How much is 2 to the 16th power?", 2**16),
    _chain("start with 100, double it, take away 30, divide by 5", (100 * 2 - 30) / 5),
    _chain("What do I get when I divide 1,000 by 16 and then add 37.5?", 1000 / 16 + 37.5),
    _chain("product of 14, 5 and 11?", 14 * 5 * 11),
    _chain("What's the remainder when 500 is divided by 37?", 500 % 37),
    _chain("Compute the average of 88, 92, 79 and 95.", (88 + 92 + 79 + 95) / 4),
    _chain("three hundred and twenty-five plus one thousand two hundred", 325 + 1200),
    _chain("Which is bigger, 37 * 43 or 40 * 40, and by how much?", 40 * 40 - 37 * 43),
    _chain("Kindly compute three quarters of 260 and add 5 to it.", 260 * 0.75 + 5),
)

_percent = partial(_number, "percent")
PERCENTS = (
    _percent("What is 18% of 250?", 250 * 0.18),
    _percent("A jacket costs $120 and it's 25% off. What do I pay?", 120 * 0.75),
    _percent("I'd like to leave a 20 percent tip on a bill of $64.50. What's the total?", 64.5 * 1.2),
    _percent(
        "The price is 80 euros before tax; VAT is 19%. What is the price including VAT?",
        80 * 1.19,
    ),
    _percent("35 is what percent of 140?", 35 / 140 * 100),
    _percent("The population rose from 4,000 to 4,600. By how many percent did it grow?", 600 / 4000 * 100),
    _percent("tv for 899, 15% discount and then 8% sales tax on top. final price?", 899 * 0.85 * 1.08),
    _percent("We split a $96 dinner plus 15% tip among 4 people. How much is it per person?", 96 * 1.15 / 4),
    _percent(
        "If I invest 2,500 at 4% simple interest per year, how much interest do I get after 3 years?",
        2500 * 0.04 * 3,
    ),
    _percent("After a 30% discount a bag costs $56. What was its original price?", 56 / 0.7),
    _percent("Increase 640 by 12.5 percent.", 640 * 1.125),
    _percent("Our rent is $1,450 and goes up by 3%. What will the new rent be?", 1450 * 1.03),
    _percent("A shop buys a lamp for 40 and sells it for 54. What is the profit in percent?", 14 / 40 * 100),
    _percent("how much tax do i pay on 1,299 if its 7.5%", 1299 * 0.075),
    _percent("$5,000 at 6% compounded yearly for two years: what is the final amount?", 5000 * 1.06**2),
    _percent("Of 240 employees, 60% are women. How many are men?", 240 * 0.4),
)


def _monday_in_toronto(moment: datetime) -> tuple[str, ...]:
    monday = moment.astimezone(ZoneInfo("America/Toronto")).weekday() == 0
    return (r"\byes\b|it is monday" if monday else r"\bno\b|\bnot\b|isn't",)


def _singapore_and_nairobi(moment: datetime) -> tuple[str, ...]:
    return tuple(clock(moment.astimezone(ZoneInfo(zone))) for zone in ("Asia/Singapore", "Africa/Nairobi"))


_now = partial(Question, "clock")
CLOCKS = (
    _now("What time is it in Tokyo right now?", at=now_in("Asia/Tokyo")),
    _now("current time in new york?", at=now_in("America/New_York")),
    _now("Could you tell me what the clock says in São Paulo?", at=now_in("America/Sao_Paulo")),
    _now("What day of the week is it in Sydney at the moment?", at=now_in("Australia/Sydney", show=weekday)),
    _now("What is today's date in London?", at=now_in("Europe/London", show=date)),
    _now("hey whats the time in mumbai", at=now_in("Asia/Kolkata")),
    _now(
        "What time will it be in Berlin 3 hours from now?",
        at=now_in("Europe/Berlin", later=timedelta(hours=3)),
    ),
    _now("Give me the time in UTC please.", at=now_in("UTC")),
    _now(
        "What was the time in Chicago 45 minutes ago?",
        at=now_in("America/Chicago", later=-timedelta(minutes=45)),
    ),
    _now("Is it Monday in Toronto today?", at=_monday_in_toronto),
    _now("Time now in Singapore and in Nairobi?", at=_singapore_and_nairobi),
    _now("Which month is it in Auckland?", at=now_in("Pacific/Auckland", show=month)),
)


def _cairo_before_lisbon(moment: datetime) -> tuple[str, ...]:
    span = offset("Africa/Cairo", moment) - offset("Europe/Lisbon", moment)
    return (hours(span), "ahead")


_zone = partial(Question, "zones")
ZONES = (
    _zone(
        "What's the time difference between New York and London?",
        at=apart("America/New_York", "Europe/London"),
    ),
    _zone(
        "How many hours ahead of Los Angeles is Tokyo?",
        at=apart("America/Los_Angeles", "Asia/Tokyo"),
    ),
    _zone(
        "If it's 9 am in Paris, what time is it in New York?",
        at=converted(9, 0, "Europe/Paris", "America/New_York"),
    ),
    _zone(
        "My call is at 3:30 PM in Chicago. What time is that in Berlin?",
        at=converted(15, 30, "America/Chicago", "Europe/Berlin"),
    ),
    _zone(
        "when its 18:00 in Singapore what time is it in London",
        at=converted(18, 0, "Asia/Singapore", "Europe/London"),
    ),
    _zone("Convert 07:15 Sydney time to Tokyo time.", at=converted(7, 15, "Australia/Sydney", "Asia/Tokyo")),
    _zone("How far apart are Delhi and Dubai in hours?", at=apart("Asia/Kolkata", "Asia/Dubai")),
    _zone(
        "A webinar begins at noon in Denver; at what time should I join from Madrid?",
        at=converted(12, 0, "America/Denver", "Europe/Madrid"),
    ),
    _zone("Is Cairo ahead of or behind Lisbon, and by how many hours?", at=_cairo_before_lisbon),
    _zone(
        "what time is 11pm tokyo in san francisco",
        at=converted(23, 0, "Asia/Tokyo", "America/Los_Angeles"),
    ),
    _zone(
        "It is 22:45 in Helsinki. What time is it in Honolulu?",
        at=converted(22, 45, "Europe/Helsinki", "Pacific/Honolulu"),
    ),
    _zone("By how many hours is Karachi ahead of Honolulu?", at=apart("Asia/Karachi", "Pacific/Honolulu")),
    _zone(
        "midnight in Seoul is what time in Mexico City?",
        at=converted(0, 0, "Asia/Seoul", "America/Mexico_City"),
    ),
)

_memory = partial(Question, "memory")
MEMORIES = (
    _memory("Remember that my locker code is 7731. What is my locker code?", words=("7731",)),
    _memory(
        "Please note that my dog is called Bruno, and then tell me what my dog is called.", words=("Bruno",)
    ),
    _memory("save 42 as my lucky number, then tell me my lucky number doubled", numbers=(42 * 2,)),
    _memory("Store my hourly rate: 35 dollars. What do I earn for 8 hours at that rate?", numbers=(35 * 8,)),
    _memory(
        "What's my flight number again?",
        before=("My flight number is LH1176, please remember it.",),
        words=("LH1176",),
    ),
    _memory(
        "What is the meeting room called?",
        before=("Remember: the meeting room is called Aurora.",),
        words=("Aurora",),
    ),
    _memory(
        "I spent 349.99. How much of my budget is left?",
        before=("keep in mind that my budget is 1,500 euros",),
        numbers=(1500 - 349.99,),
    ),
    _memory(
        "What's my shirt size?",
        before=("Remember my shoe size is 43.", "Also remember that my shirt size is 39."),
        words=(r"\b39\b",),
        never=(r"\b43\b",),
    ),
    _memory(
        "What is my salary minus my rent?",
        before=("Remember that my rent is 900.", "Remember that my salary is 3,200."),
        numbers=(3200 - 900,),
    ),
    _memory(
        "What's my favourite colour?",
        before=(
            "Remember that my favourite colour is green.",
            "Actually my favourite colour is blue now, please remember that.",
        ),
        words=("blue",),
        never=("green",),
    ),
    _memory(
        "When is Alice's birthday?",
        before=("Make a note: Alice's birthday is on March 14.",),
        words=("March 14",),
    ),
    _memory(
        "whats the wifi password",
        before=("Note that the wifi password is sunflower-88",),
        words=("sunflower-88",),
    ),
    _memory(
        "How much do I owe Peter?",
        before=("Remember that I owe Peter 120 dollars.",),
        words=(r"\b120\b",),
    ),
    _memory(
        "How much do 6 tickets cost at the ticket price I told you?",
        before=("Hi! Please remember that the ticket price is 14.50.",),
        numbers=(14.5 * 6,),
    ),
    _memory(
        "List everything you have noted.",
        before=("Remember that my gym code is 2468.", "Remember that my seat is 14C."),
        words=("gym", "seat"),
    ),
)


def _landing(moment: datetime) -> tuple[str, ...]:
    return converted(1, 0, "America/New_York", "Europe/London")(moment)


def _minutes_apart(moment: datetime) -> tuple[str, ...]:
    span = abs(offset("America/New_York", moment) - offset("Europe/Berlin", moment))
    return (rf"\b{span // timedelta(minutes=1)}\b",)


_both = partial(Question, "combined")
COMBINED = (
    _both(f"{line(CART)} Add up the prices and take 10% off.", numbers=((49.5 + 199 + 25) * 0.9,)),
    _both(
        "A flight leaves New York at 6 pm and takes 7 hours. What is the local time in London when it lands?",
        at=_landing,
    ),
    _both("What time is it in Tokyo, and what is 15% of 80?", at=now_in("Asia/Tokyo"), words=(r"\b12\b",)),
    _both(
        f"Here is my cart: {line(CART)}. How much of my budget is left if I buy one of each?",
        before=("Remember that my budget is 300.",),
        numbers=(300 - 49.5 - 199 - 25,),
    ),
    _both(
        "Remember that my team is in Lisbon. What time is it there?",
        at=now_in("Europe/Lisbon"),
        never=(r"\bin UTC\b",),  # the same time in winter, and yet another answer
    ),
    _both("What's 12*12? Also, what is the average of 10, 20 and 60?", numbers=(144, 30)),
    _both(
        "Compute 25% of 360 and remember it as quota. Then tell me the quota plus 10.",
        numbers=(360 * 0.25 + 10,),
    ),
    _both(
        'The total of the amounts in {"amounts": [18.4, 22.6, 39]} is split among 4 people. '
        "How much does each pay?",
        numbers=((18.4 + 22.6 + 39) / 4,),
    ),
    _both("How many minutes are New York and Berlin apart?", at=_minutes_apart),
    _both(
        "A cinema ticket costs 12.50 and popcorn costs 6. What do 4 people pay if everyone has both and "
        "there's a 10% group discount?",
        numbers=(4 * (12.5 + 6) * 0.9,),
    ),
    _both(
        "I worked 36 hours this week, and 20% tax is deducted from what I earn. What remains?",
        before=("My hourly wage is 22.50, remember that.",),
        numbers=(36 * 22.5 * 0.8,),
    ),
    _both(
        'What is the highest price in {"prices": [12, 48, 31]}, and what is it with 20% tax added?',
        numbers=(48, 48 * 1.2),
    ),
    _both(
        "I buy 3 books at 14.99 each and call a friend in Rome. What do I pay, and what time is it there?",
        words=(r"44\.97",),
        at=now_in("Europe/Rome"),
    ),
)

QUESTIONS = (
    *STORIES,
    *CHAINS,
    *PERCENTS,
    *CLOCKS,
    *ZONES,
    *MEMORIES,
    *DOCUMENTS,
    *COMBINED,
    *PARTLY_UNKNOWN,
    *UNKNOWN,
)
