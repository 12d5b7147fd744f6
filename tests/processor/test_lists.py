import pytest
import stripe


@pytest.fixture
def five(client):
    """Five intents, oldest first."""
    return [
        client.v1.payment_intents.create(
            {
                "amount": 1000 + number,
                "currency": "eur" if number else "usd",
                "customer": f"cus_{number % 2}",
                "metadata": {"order_id": str(number), "it's": 'a "quote"'},
            }
        ).id
        for number in range(5)
    ]


def test_pages_are_newest_first_and_complete(client, five):
    page = client.v1.payment_intents.list({"limit": 2})
    assert ([intent.id for intent in page.data], page.has_more) == ([five[4], five[3]], True)
    assert [intent.id for intent in page.auto_paging_iter()] == five[::-1]
    back = client.v1.payment_intents.list({"limit": 2, "ending_before": five[1]})
    assert [intent.id for intent in back.data] == [five[3], five[2]]
    last = client.v1.payment_intents.list({"limit": 2, "starting_after": five[1]})
    assert ([intent.id for intent in last.data], last.has_more) == ([five[0]], False)


def test_filters(client, five):
    assert [one.id for one in client.v1.payment_intents.list({"customer": "cus_1"}).data] == [five[3], five[1]]
    created = client.v1.payment_intents.retrieve(five[0]).created
    assert len(client.v1.payment_intents.list({"created": {"gte": created, "lte": created + 60}}).data) == 5
    assert client.v1.payment_intents.list({"created": {"lt": created}}).data == []


@pytest.mark.parametrize(
    ("params", "code", "param"),
    [
        ({"limit": 0}, "parameter_invalid_integer", "limit"),
        ({"limit": 101}, "parameter_invalid_integer", "limit"),
        ({"limit": "many"}, "parameter_invalid_integer", "limit"),
        ({"starting_after": "pi_none"}, "resource_missing", "starting_after"),
        ({"colour": "red"}, "parameter_unknown", "colour"),
        ({"expand": ["data.secrets"]}, None, "expand"),
    ],
)
def test_bad_list_parameters_are_named(client, params, code, param):
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        client.v1.payment_intents.list(params)
    assert (refusal.value.http_status, refusal.value.code, refusal.value.param) == (400, code, param)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("metadata['order_id']:'3'", [3]),
        ('metadata["order_id"]:"3" OR metadata["order_id"]:"1"', [3, 1]),
        ("amount>1002", [4, 3]),
        ("amount>=1001 AND amount<1003", [2, 1]),
        ("-currency:'eur'", [0]),
        ("status:'requires_payment_method' customer:'cus_1'", [3, 1]),
        ("customer~'_1' -metadata['order_id']:'1'", [3]),
        ("metadata['nothing']:null currency:'usd'", [0]),
        ("-metadata['nothing']:null", []),
        (r"metadata['it\'s']~'quote' amount:1000", [0]),
        ("metadata['order_id']:\"'; DROP TABLE x --\"", []),
    ],
)
def test_search_finds(client, five, query, found):
    result = client.v1.payment_intents.search({"query": query})
    assert [five.index(intent.id) for intent in result.data] == found


def test_search_pages(client, five):
    result = client.v1.payment_intents.search({"query": "amount>0", "limit": 2})
    assert [intent.id for intent in result.auto_paging_iter()] == five[::-1]


@pytest.mark.parametrize(
    "query", ["nonsense", "amount:'x'", "colour:'red'", "amount>1 AND amount>2 OR amount>3", "amount>1 AND", "status>3"]
)
def test_an_unreadable_query_is_refused(client, query):
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        client.v1.payment_intents.search({"query": query})
    assert refusal.value.param == "query"


def test_charges_are_listed_by_intent(client):
    intent = client.v1.payment_intents.create({"amount": 1000, "currency": "eur"})
    with pytest.raises(stripe.CardError):
        client.v1.payment_intents.confirm(intent.id, {"payment_method": "pm_card_chargeDeclined"})
    client.v1.payment_intents.confirm(intent.id, {"payment_method": "pm_card_visa"})
    client.v1.payment_intents.create({"amount": 1000, "currency": "eur", "payment_method": "pm_card_visa"})
    charges = client.v1.charges.list({"payment_intent": intent.id}).data
    assert [charge.status for charge in charges] == ["succeeded", "failed"]
