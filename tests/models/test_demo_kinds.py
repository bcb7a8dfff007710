"""Kinds of questions to the rule-based model, in words of their own, and what it must not assert.

A line is a conversation: questions behind one another with `//`, then `=>` and the texts that are looked for.
`@NAME` stands for a document; an indented line goes on with the one before.
"""

import re

import pytest

from tests.models.test_demo import Bench, says

DOCUMENTS = {
    "STORE": (
        '{"warehouse": {"bolts": {"price": 0.2, "stock": 500}, "nuts": {"price": 0.1, "stock": '
        '900}, "drills": {"price": 60, "stock": 4}}}'
    ),
    "FLEET": (
        '{"fleet":{"van":{"seats":8,"km":91000},"coach":{"seats":52,"km":240000},"mini":{"seats":'
        '4,"km":30500}},"depot":"Kiel"}'
    ),
    "PLANTS": (
        '[{"plant":"Fern","height":45,"pots":6,"price":9},{"plant":"Palm","height":180,"pots":2,"'
        'price":35},{"plant":"Ivy","height":60,"pots":4,"price":5}]'
    ),
    "TEAM": (
        '{"team":[{"name":"Omar","hours":32,"rate":20},{"name":"Lucy","hours":28,"rate":30},{"nam'
        'e":"Piet","hours":40,"rate":25}],"project":"Bridge"}'
    ),
    "BOOKS": (
        '{"books":[{"title":"Dune","pages":600,"price":12,"copies":3},{"title":"Emma","pages":450'
        ',"price":8,"copies":5},{"title":"Ulysses","pages":730,"price":15,"copies":1}],"shop":"Co'
        'rner"}'
    ),
    "BIKES": (
        '[{"model":"Roadster","weight":9.5,"gears":22},{"model":"Cruiser","weight":15,"gears":7},'
        '{"model":"Trail","weight":13,"gears":12}]'
    ),
    "GOODS": (
        '{"products":[{"name":"Lamp","price":40,"qty":3},{"name":"Desk","price":150,"qty":2},{"na'
        'me":"Chair","price":60,"qty":5}]}'
    ),
    "ZOO": (
        '{"zoo":{"lion":{"weight":190,"age":9},"zebra":{"weight":300,"age":12},"otter":{"weight":'
        '11,"age":4}}}'
    ),
}
ANSWERED = """
Remember my brother's phone number is 5550. // What's my brother's number? => 5550
A bakery makes 40 rolls in the morning and 35 in the afternoon. It sells 52. How many are left? => 23
Nora has 15 stickers. Pia has 6 fewer than Nora. How many do they have together? => 24
A tank fills at 12 litres per minute and leaks 5 litres per minute. How many litres are in it after 20
  minutes? => 140
47 sweets are shared equally among 6 children. How many are left over? => 5
Kim has 50 marbles. She gives 12 to Ben, 9 to Ali and 7 to Sue. How many does she keep? => 22
Sales rose from 250 to 300 units. What is the percentage increase? => 20
After 20% off, a radio sells for 48 euros. How much did it cost before the discount? => 60
She bought shares for $400 and sold them for $460. What percent profit did she make? => 15
The square root of 2.25? => 1.5
Is today Wednesday in Lima? => Yes; Wednesday
Remember my budget is 300. // What is my budget doubled? => 600
Four friends pick 52 apples and everyone gets the same amount. How many apples does each get? => 13
A machine makes 240 bolts in 4 hours. How many does it make in 7 hours? => 420
A car park has room for 90 cars. 61 cars are parked. How many more fit? => 29
There are 12 boxes with 10 candles each. 37 candles are given away. How many candles are left? => 83
A taxi charges a 4 dollar base fee plus 2 dollars per km. What does a 9 km ride cost? => 22
Petrol costs 1.80 per litre. How much is 45 litres? => 81
A farm has 80 animals. A quarter are pigs, half are sheep and the rest are cows. How many cows are there?
  => 20
The average of three numbers is 20. Two of them are 15 and 22. What is the third? => 23
Take 8 and add 4. Multiply what you get by 5. => 60
What is 3 to the fourth power? => 81
What do I get when I add 17 to 25? => 42
Which is larger, 15% of 300 or 20% of 200, and by how much? => 45; 5
What is two thirds of 90? => 60
A shirt costs 30 and trousers cost 50. With 10% off everything, how much do I pay for both? => 72
Add 45 and 35. // What is that with 10% tax added? => 88
Which month is it in Cairo? => January
How far apart in hours are Berlin and New York? => 6
Is it already Thursday in Auckland? => Yes; Thursday
Remember that my budget is 900. // How much of my budget is left if I spend 250? => 650
Remember that I earn 15 dollars an hour. // How much do I get for 8 hours at that rate? => 120
Remember that Tom lives in Bath. // Where does Tom live? => Bath
Keep in mind that our cat is called Pixel. // whats the name of our cat => Pixel
@STORE What is the highest price? => 60
@BIKES What is the model of the second entry? => Cruiser
@BIKES Sort them by weight and list the models. => Roadster; Trail; Cruiser
Remember that my sister lives in Tokyo. What time is it there? => 21:30
@GOODS What is the price of the Desk plus 25? => 175
@GOODS How much do I pay for one of each item? => 250
What do 4 tickets at 12 dollars each cost, and what time is it in Tokyo? => 48; 21:30
@PLANTS Tell me everything about the Ivy. => 60; 5
A baker bakes 24 muffins before noon, 18 after lunch and 10 in the evening. He sells 37. How many muffins
  does he still have? => 15
Tim collected 41 shells. Una collected 14 fewer than Tim. How many shells do they have altogether? => 68
A tank receives 10 litres per hour and loses 3 litres per hour. By how much does the content rise in 6
  hours? => 42
Six kids share 40 balloons fairly. How many balloons are left over? => 4
Membership climbed from 640 to 800. What is the increase in percent? => 25
Following a 10% pay rise, Rita earns 2200. What did she earn before? => 2000
Square root of 50 plus 1? => 8.07
Remember that my dentist appointment is on Tuesday. // Actually, it's on Thursday. // When is my dentist
  appointment? => Thursday
Remember my score is 75. // Double my score. => 150
Seven children get 91 stickers in equal shares. How many does each child get? => 13
A cyclist rides 60 km in 4 hours. At that speed, how far does he ride in 6 hours? => 90
Lea has 5 boxes with 12 chocolates each and gives away 22 chocolates. How many remain? => 38
A plumber charges a call-out fee of 50 euros plus 40 euros per hour. What does a 3 hour job cost? => 170
Of 200 voters, half chose red, a fifth chose blue and the others chose green. How many chose green? => 60
The average of 5 numbers is 12. Four of them are 10, 14, 9 and 13. What is the fifth? => 14
Start with 9, double it, then subtract 4 from what you have. => 14
Compute 10 to the sixth power. => 1000000
Which is greater, 144 / 9 or 5 * 3, and by how much? => 16; 1
Find three quarters of 360 minus 20. => 250
What is 7 * 30? // How much is it with 10% VAT included? => 231
What month is it in Auckland? => January
Is today Saturday in Dubai? => No; Wednesday
Remember that my savings are 2400. // How much of my savings remains after I pay 650? => 1750
Remember I get paid 16 dollars an hour. // What do I earn for 10 hours at that rate? => 160
Please remember my horse is named Storm. // What is the name of my horse? => Storm
@FLEET What is the highest number of seats? => 52
@PLANTS What is the height of the third plant? => 60
@TEAM What are the most hours, and who has it? => 40; Piet
@TEAM List the top-level keys. => team; project
Remember that my client is based in New York. // What time is it there now? => 07:30
@TEAM What is Lucy's rate times 8? => 240
Remember my hourly rate is 30 euros. // If I work 9 hours, how much do I earn? => 270
Remember that my target is 500. // What is 20% of my target? => 100
@BOOKS What is the price of Emma? => 8
@ZOO What is the weight of the lion? => 190
A farm collects 120 eggs on Monday, 95 on Tuesday and 80 on Wednesday. It sells 200. How many eggs are
  left? => 95
A pipe adds 25 litres per minute to a tank while another drains 10 litres per minute. How much more water
  is in the tank after 12 minutes? => 180
Mara has 100 stamps. She gives 30 to her brother, 20 to her cousin and 15 to a friend. How many are left?
  => 35
A sofa costs 450 after a 10% discount. How much was it originally? => 500
A school ordered 5 cartons of 24 books and gave 90 to pupils. How many books are left? => 30
A machine fills 150 bottles in 5 minutes. How many bottles does it fill in 12 minutes? => 360
A gym charges a joining fee of $25 and $30 per month. What is the cost for 6 months? => 205
Five cousins share a prize of 1250 euros equally. How much does each one get? => 250
Bananas cost 2 dollars per kg and grapes cost 5 dollars per kg. How much are 3 kg of bananas and 2 kg of
  grapes? => 16
Multiply 6 by 7. Add 8 to what you get. => 50
2 to the 10th power? => 1024
What is three quarters of 200? => 150
Is it Wednesday in London? => Yes
In hours, how far apart are Oslo and Tokyo? => 8
Remember that my holiday budget is 1500. // How much of my holiday budget is left if I spend 400? => 1100
Remember that my aunt lives in Lisbon. // What time is it there? => 12:30
Remember that I owe Nils 12 euros. // How much do I owe Nils? => 12
Remember that my weight is 70. // Actually it is now 68. // What is my weight? => 68
@ZOO Which animal has the highest weight? => zebra
@BOOKS What is the title of the third book? => Ulysses
@BOOKS What are the top-level keys? => books; shop
@BOOKS How much would one of each book cost? => 35
@BOOKS What is the total price, split among 5 people? => 7
Remember that my travel budget is 640. // How much of my travel budget is left after spending 140? => 500
A class makes 30 flags in the first hour and 25 in the second, then gives away 40. How many flags are
  left? => 15
The number of members rose from 400 to 460. What is the growth in percent? => 15
Nine packs of 6 batteries; 20 batteries are handed out. How many are left? => 34
Of 120 apples, a third are red, a quarter are green and the others are yellow. How many are yellow? => 50
Is it Sunday in Berlin? => No; Wednesday
Raise 3 to the 5th power. => 243
A recipe for 4 people needs 300 g flour. How much flour for 6 people? => 450
The population fell from 500 to 450. What is the decrease in percent? => 10
Anna earned 50 on Monday and 70 on Tuesday. She spent 30. How much does she have left? => 90
Tim has 12 pens and Tom has 9. How many do they have in total? => 21
A store had 80 shirts, sold 35 and received 20 more. How many does it have now? => 65
"""
"""The last answer has each text."""
WITHHELD = """
Remember that my brother lives in Leeds. // Where does my sister live? => Leeds
Store my office door code 4411. // What is my garage door code? => 4411
@GOODS What colour is the Lamp? => 40; 150
@GOODS Who supplies the Desk? => 150
Note that I owe Vera 20. // How much do I owe Peter? => 20
Remember that my mother's flight leaves at 9:40. // When does my father's flight leave? => 9:40
Remember that my sister's birthday is 1 June. // When is my birthday? => 1 June
Remember that my daughter goes to Elm School. // Where does my son go to school? => Elm
@PLANTS How old is the Palm? => 180; 35
@TEAM Where does Piet live? => 40; 25
Remember I owe Dana 80. // What do I owe Frank? => 80
Remember that my red suitcase weighs 18 kg. // How heavy is my blue suitcase? => 18
Note that the meeting room is B12. // What is the dining room? => B12
Remember that my landlord is Mr Fox. // Who is my plumber? => Fox
Remember that my favourite tea is sencha. // What is my favourite coffee? => sencha
@BOOKS Who is the author of Emma? => 450; 8; 12
@ZOO What does the otter eat? => 11; 4
Remember that my grandma's door code is 2468. // What is my grandpa's door code? => 2468
What's the time there? => 12:30
Remember my passport number is X99. // What is my phone number? => X99
"""
"""The last answer has none of the texts."""
DECLINED = """
What will a barrel of oil cost in 10 days?
What will the price of wheat be 5 weeks from now?
If I work 7 hours at my usual wage, what do I get?
What will a kilo of coffee cost in 30 days?
In 5 years, how much will my house be worth?
I buy 3 apples and 4 pears. How much do I pay?
What will petrol cost in 6 weeks?
What will the dollar be worth in 4 months?
What is the price of 4 tickets to the opera?
There are 30 birds. How many will be there in 2 years?
Kate has some coins and finds 5 more. How many coins does she have?
Ann has 5 apples. How many apples does Bob have?
A shirt costs 40. How much is it after the discount?
Sue buys 3 kg of rice. What does she pay?
A car uses 7 litres. How much fuel does it use for 300 km?
A bag has 3 red and 5 blue balls. What is the probability of red?
"""
"""Something that a number would need is not told."""


def cases(block: str) -> list[str]:
    return re.sub(r"\n {2}", " ", block).strip().split("\n")


async def conversed(case: str) -> tuple[Bench, str, list[str]]:
    """The bench, the last answer and the texts to look for."""
    questions, _, texts = case.partition(" => ")
    bench, answer = Bench(), ""
    for question in questions.split(" // "):
        answer = await bench.ask(re.sub(r"@([A-Z]+)", lambda match: DOCUMENTS[match[1]], question))
    return bench, answer, texts.split("; ")


@pytest.mark.parametrize("case", cases(ANSWERED))
async def test_each_kind_of_question_is_answered(case: str) -> None:
    _, answer, expected = await conversed(case)

    assert says(answer, *expected), answer


@pytest.mark.parametrize("case", cases(WITHHELD))
async def test_what_was_said_of_something_else_is_no_answer(case: str) -> None:
    _, answer, unsaid = await conversed(case)

    assert answer
    assert [text for text in unsaid if text in answer] == [], answer


@pytest.mark.parametrize("case", cases(DECLINED))
async def test_a_question_that_lacks_a_number_gets_no_number(case: str) -> None:
    bench, answer, _ = await conversed(case)

    assert " = " not in answer, answer
    assert "the answer is" not in answer.lower(), answer
    assert "calculator" not in [name for name, _ in bench.calls]
