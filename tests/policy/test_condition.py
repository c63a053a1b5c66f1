"""Conditions: what they say of a request, and what is said of those that are wrong."""

from __future__ import annotations

import operator
import string
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from portico.http.headers import Headers
from portico.http.message import Client, Request
from portico.http.user import USER, User
from portico.observe.exchange import Exchange
from portico.policy.condition import Condition, ConditionError, Expression
from portico.policy.condition.syntax import MAX_DEPTH, MAX_LENGTH
from portico.routing.entry import Facts, Part

CLAIMS = {"org": "acme", "level": 3, "staff": True, "groups": ["a"], "nothing": None}


def request_of(*, address: str = "10.1.2.3", user: bool = True) -> Request:
    headers = Headers(
        [
            (b"X-Role", b"boss"),
            (b"x-role", b"guest"),
            (b"X-Empty", b""),
            (b"X-Name", "Zoë".encode()),
            (b"Cookie", b"group=b; theme=dark"),
        ]
    )
    client = Client(address, 5, 443, "https")
    exchange = Exchange(0.0)
    exchange.route = "orders"
    request = Request(
        "POST", "/orders/7", "page=2&page=3&q=a%20b&flag", headers, host="api.example", client=client, exchange=exchange
    )
    request.captures = {"id": "7"}
    if user:
        request[USER] = User("ada", frozenset({"admin", "dev"}), frozenset({"orders:read"}), CLAIMS)
    return request


HOLDS = r"""
true
!false
!!true
method == 'POST'
method != "GET"
path == '/orders/7' && host == 'api.example'
scheme == 'https'
route == 'orders'
query['page'] == '2'
query['q'] == 'a b'
query['flag'] == '' && 'flag' in query
query['none'] == '' && !('none' in query)
headers['x-role'] == 'boss'
headers['X-ROLE'] == 'boss'
headers['x-name'] == 'Zoë'
headers['x-empty'] == '' && 'x-empty' in headers
headers['x-none'] == '' && !('X-None' in headers)
cookies['group'] == 'b' && 'theme' in cookies
captures['id'] == '7' && 'id' in captures
address == '10.1.2.3'
address in '10.0.0.0/8'
address in ['192.168.0.0/16', '::1', '10.1.2.3']
address in '::ffff:10.0.0.0/104'
!(address in '10.2.0.0/16')
user == 'ada' && user.name == 'ada' && user != ''
'admin' in user.roles && !('root' in user.roles)
'orders:read' in user.scopes
size(user.roles) == 2
user.claims['org'] == 'acme'
user.claims['level'] == '3' && user.claims['staff'] == 'true'
'groups' in user.claims && user.claims['groups'] == ''
!('none' in user.claims)
method in ['POST', 'PUT']
3 in [1, 2, 3]
true in [1 == 1]
'7' in [captures['id'], 'x']
path.startsWith('/orders/')
path.endsWith(captures['id'])
path.contains('ders')
'/orders/7/items'.startsWith(path)
path.matches('[0-9]$')
path.matches(r'^/orders/\d+$')
path.matches('orders')
size(path) == 9 && path.size() == 9
size('Zoë') == 3
size([1, 2]) == 2
size(path) > 8 && size(path) >= 9 && size(path) < 10 && size(path) <= 9
'a' < 'b' && 'b' > 'a'
-1 < 0 && 0x1F == 31 && -9223372036854775808 < 9223372036854775807
false || false || true
true || false && false
(true || false) && true
false ? false : true
true ? true : false ? false : false
(method == 'POST' ? 'a' : 'b') == 'a'
(1 == 1) == true && (1 == 2) != true
'\'' == "'" && "\"" == '"' && '\\' == r'\'
'\x41\u00e9\U0001F600\101\n' == 'Aé😀A\n'
R"\d" == '\\d'
true // && false
"""


@pytest.mark.parametrize("text", HOLDS.strip().splitlines())
def test_what_holds(text: str) -> None:
    condition = Condition(text)
    assert condition.holds(request_of()) is True
    assert Condition(f"!({text}\n)").holds(request_of()) is False


@pytest.mark.parametrize(
    "text",
    [
        *("method == 'post'", "path == '/orders'", "host == 'API.example'", "query['page'] == '3'"),
        *("headers['x-role'] == 'guest'", "path.matches('^orders')", "address in ['11.0.0.0/8', '::/0']"),
        *("method in ['GET']", "true && false", "false || false", "path.startsWith('orders')", "1 in [2]"),
    ],
)
def test_what_does_not_hold(text: str) -> None:
    assert Condition(text).holds(request_of()) is False


@pytest.mark.parametrize(
    "text",
    [
        *("user == ''", "user.name == ''", "size(user.roles) == 0", "size(user.scopes) == 0"),
        *("user.claims['org'] == ''", "!('org' in user.claims)", "!('admin' in user.roles)"),
    ],
)
def test_nobody_has_no_name_and_nothing_else(text: str) -> None:
    assert Condition(text).holds(request_of(user=False)) is True


def test_a_request_that_a_policy_made_has_no_client_and_no_route() -> None:
    condition = Condition("address == '' && scheme == '' && route == '' && !(address in '0.0.0.0/0')")
    assert condition.holds(Request("GET", "/")) is True


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        ("10.0.0.0", True),
        ("10.255.255.255", True),
        ("11.0.0.0", False),
        ("::ffff:10.1.2.3", True),
        ("2001:db8::1", True),
        ("2001:db9::1", False),
        ("", False),
        ("unknown", False),
    ],
)
def test_networks(address: str, inside: bool) -> None:
    condition = Condition("address in ['10.0.0.0/8', '2001:db8::/32']")
    for _ in range(2):  # the second answer is remembered
        assert condition.holds(request_of(address=address)) is inside


def test_only_what_decides_is_asked() -> None:
    long = Request("GET", "/" + "a" * 9000)
    assert Condition("method == 'GET' || path.matches('^x')").holds(long) is True
    assert Condition("method == 'POST' && path.matches('^x')").holds(long) is False
    assert Condition("method == 'GET' ? true : path.matches('^x')").holds(long) is True


def test_it_may_have_lines_and_comments() -> None:
    text = "method == 'POST' // what is sent\n  && path.startsWith('/orders/')\n"
    assert Condition(text).holds(request_of()) is True


WRONG = r"""
methd == 'GET'
    1: there is no 'methd' | did you mean 'method'?
foo
    1: there is no 'foo' | there are method, path, host, scheme, address, route, user, query, headers, cookies and captures
method == 5
    8: a text cannot be compared with a number | write '5' in quotes
headers['x-debug'] == true
    20: a text cannot be compared with a truth value | write 'true' in quotes
size(path) == '5'
    12: a number cannot be compared with a text
method
    1: a condition is true or false, and this is a text
1
    1: a condition is true or false, and this is a number
method && true
    1: && stands between truth values, and this is a text
true || 1
    9: || stands between truth values, and this is a number
!method
    2: ! turns a truth value round, and this is a text
method ? true : false
    1: what stands before ? is true or false, and this is a text
true ? 1 : 'a'
    12: both sides of : are of one kind; the first is a number, this a text
true < false
    6: < does not compare a truth value with another
['a'] == ['a']
    7: == does not compare a list of texts with another
path.startswith('/a')
    6: there is no function 'startswith' | did you mean 'startsWith'?
path.lower() == 'a'
    6: there is no function 'lower' | there are startsWith, endsWith, contains, matches and size
startsWith(path, '/a')
    1: 'startsWith' belongs to a text | write path.startsWith(...)
sise(path) == 1
    1: there is no function 'sise' | did you mean 'size'?
path.startsWith(1)
    17: startsWith takes a text, and this is a number
path.startsWith('a', 'b')
    6: startsWith takes one text, not 2 values
size(path).contains('1')
    1: contains asks a text, and this is a number
size()
    1: size takes one value, not 0
size(1) == 1
    6: size is of a text or a list, and this is a number
path.size == 9
    6: 'size' is a function | write size(...)
path.matches(host)
    14: a regular expression is a text that is written here
path.matches('(')
    14: '(' is not a regular expression: missing ), unterminated subpattern at position 0
path.matches('(a+)+$')
    14: a repetition within a repetition could take too long | let what is repeated match in one way only: [a-z0-9-]+, or (/[^/]+)*
path.matches('\d')
    15: there is no escape \d | for a backslash write \\, or put an r before the text: r'\d'
headers
    1: 'headers' holds values by name | write which: headers['a']
headers == 'a'
    1: 'headers' holds values by name | write which: headers['a']
headers.host == 'a'
    9: there is no 'headers.host' | write headers['host']
headers['a b'] == ''
    9: 'a b' is not a header name
'a b' in headers
    1: 'a b' is not a header name
headers[method] == ''
    9: the name is a text that is written here | write ['x-debug']
path['a'] == ''
    1: [...] looks for a name, and this is a text
user.role == 'admin'
    6: user has no 'role' | did you mean 'roles'?
user.roles == 'admin'
    12: a list of texts cannot be compared with a text
path in '/orders'
    9: in looks into a list, and this is a text | write '/orders'.contains(path)
1 in ['a']
    3: a number cannot be in a list of texts
['a', 1] == 1
    7: a list has one kind of values: a text first, and this is a number
method in []
    11: this list has nothing in it
method in [['a']]
    12: a list of texts cannot stand in a list
address in '10.0.0.1/8'
    12: '10.0.0.1/8' is not a network | write 10.0.0.0/8
address in ['::1', 'home']
    20: 'home' is not a network | write 10.0.0.0/8, fd00::/8 or 192.0.2.7
address in host
    12: in looks into a list, and this is a text | networks are written here: address in '10.0.0.0/8'
address in ['10.0.0.0/8', host]
    12: networks stand in a list that is written here, with nothing else in it | combine tests: address in '10.0.0.0/8' || address == headers['x-a']
address in (true ? ['10.0.0.0/8'] : ['::1'])
    18: networks stand in a list that is written here, with nothing else in it | combine tests: address in '10.0.0.0/8' || address == headers['x-a']
address == '::ffff:10.1.2.3'
    12: '::ffff:10.1.2.3' is not how the address is written | write 10.1.2.3
address == '10.0.0.0/8'
    12: '10.0.0.0/8' is not an address | write address in '10.0.0.0/8'
address == '::01'
    12: '::01' is not how the address is written | write ::1
method = 'GET'
    8: '=' has no meaning here | write == to compare
method == 'GET' and true
    17: an operator or the end was expected here, not and | write &&
not true
    1: a value was expected here, not not | write !
true & false
    6: '&' has no meaning here | write &&
method == 'GET
    11: "'" has no meaning here | a text ends with the quote that it began with, on the same line
method == /a
    11: '/' has no meaning here | a text stands in quotes: '/orders'
method in {'GET'}
    11: '{' has no meaning here | a list stands in square brackets: ['GET', 'HEAD']
size(path) + 1 == 2
    12: '+' has no meaning here | there is no arithmetic here
1.5 == 1
    1: this is not a whole number | write 10; there are no fractions and no suffixes here
10s == 1
    1: this is not a whole number | write 10; there are no fractions and no suffixes here
9223372036854775808 == 1
    1: this number is too large | the largest is 9223372036854775807
1 == 99999999999999999999
    6: this number is too large | the largest is 9223372036854775807
1 == 1 == true
    8: an operator or the end was expected here, not '==' | put what is compared first in parentheses
(true
    6: ')' was expected here, not the end
true)
    5: an operator or the end was expected here, not ')'
method in ['GET',]
    18: a value was expected here, not ']'
method in ['GET' 'PUT']
    18: ',' was expected here, not 'PUT'
-method == 1
    2: a number was expected here, not method
path.
    6: a name was expected here, not the end
'\ud800' == ''
    2: there is no escape \ud800 | for a backslash write \\, or put an r before the text: r'\d'
"""  # noqa: E501


def wrong() -> list[tuple[str, str]]:
    lines = WRONG.strip().splitlines()
    return list(zip(lines[::2], (line.strip() for line in lines[1::2]), strict=True))


@pytest.mark.parametrize(("text", "said"), wrong())
def test_what_is_said_of_mistakes(text: str, said: str) -> None:
    with pytest.raises(ConditionError) as caught:
        Condition(text)
    error = caught.value
    hint = f" | {error.hint}" if error.hint else ""
    assert f"{error.column}: {error.message}{hint}" == said
    assert str(error) == f"column {error.column}: {error.message}"


def test_a_mistake_on_a_later_line_is_found_there() -> None:
    with pytest.raises(ConditionError, match=r"^line 2, column 4: there is no 'pth'$") as caught:
        Condition("method == 'GET'\n&& pth == '/'\n")
    assert (caught.value.line, caught.value.column) == (2, 4)


@pytest.mark.parametrize("text", ["", "  ", "// nothing"])
def test_an_empty_text_is_no_condition(text: str) -> None:
    with pytest.raises(ConditionError, match="there is no expression"):
        Condition(text)


def test_length_and_depth_have_limits() -> None:
    fits = "true" + " " * (MAX_LENGTH - 4)
    assert Condition(fits).holds(request_of())
    with pytest.raises(ConditionError, match=f"at most {MAX_LENGTH} characters, not {MAX_LENGTH + 1}"):
        Condition(fits + " ")
    many = " || ".join(["false"] * 450)
    assert Condition(f"{many} || true").holds(request_of())
    assert Condition("(" * (MAX_DEPTH - 1) + "true" + ")" * (MAX_DEPTH - 1)).holds(request_of())
    for text in ("(" * 2000, "!" * 2000 + "true", "[" * 2000, "path" + ".a" * 1000, "true ? true : " * 100, "a[" * 900):
        with pytest.raises(ConditionError, match=f"more than {MAX_DEPTH} deep"):
            Condition(text)


def test_the_captures_that_it_speaks_of_are_checked() -> None:
    condition = Condition("captures['id'] == '1' || 'idd' in captures")
    assert list(condition.captures) == ["id", "idd"]
    condition.check_captures("/a/{id}/{idd}", {"id", "idd"})
    with pytest.raises(
        ConditionError, match=r"^column 26: there is no capture 'idd': .*/a/\{id\} has only id$"
    ) as caught:
        condition.check_captures("/a/{id}", {"id"})
    assert caught.value.hint == "did you mean 'id'?"
    with pytest.raises(ConditionError, match=r"^column 10: there is no capture 'id': the path /a has none$"):
        condition.check_captures("/a", ())


WORDS = (
    *("method", "path", "user", "roles", "headers", "captures", "address", "size", "matches", "startsWith", "true"),
    *("in", "==", "!=", "<", "&&", "||", "!", "?", ":", ".", ",", "(", ")", "[", "]", "-", "'a'", "'10.0.0.0/8'"),
    *("'(a*)*'", "r'\\d'", '"x"', "1", "0x1", "//", "\n", " ", "'", "\\", "é"),
)
TEXTS = st.one_of(
    st.text(max_size=60),
    st.text(alphabet=string.printable, max_size=60),
    st.lists(st.sampled_from(WORDS), max_size=25).map(" ".join),
    st.lists(st.sampled_from(WORDS), max_size=25).map("".join),
)


def error_of(text: str) -> ConditionError | None:
    try:
        Condition(text)
    except ConditionError as error:
        return error
    return None


@given(TEXTS)
@example("path.matches('[[a]')")
@example("path.matches('" + "(" * 3000 + "')")
@example("path.matches('" + "(" * 1500 + ")" * 1500 + "')")
@example("path.matches('a{99999999999999999999}')")
@example("path.matches('(?P<a>b)(?P<a>c)')")
def test_any_text_is_a_condition_or_is_told_to_be_none(text: str) -> None:
    error = error_of(text)
    if error is None:
        assert Condition(text).holds(request_of()) in (True, False)
    else:
        lines = text.split("\n")
        assert 1 <= error.line <= len(lines)
        assert 1 <= error.column <= len(lines[error.line - 1]) + 1


@given(st.text(max_size=30))
def test_any_text_is_a_regular_expression_or_is_told_to_be_none(text: str) -> None:
    quoted = "".join(f"\\U{ord(letter):08x}" for letter in text if not 0xD800 <= ord(letter) < 0xE000)
    condition = f"path.matches('{quoted}')"
    error = error_of(condition)
    if error is None:
        assert Condition(condition).holds(request_of()) in (True, False)
    else:
        assert error.column == 14


PIECES = ("a", "b", "%61", "+", "%2B", "=", "=", "&", ";", " ", "%", "%zz", "%C3%A9", "%FF", "")
NAMES = ("a", "b", " ", "+", "é", "ab", "=", "%", "%61", "%zz", "")


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join), st.sampled_from(NAMES))
@settings(max_examples=1000)
def test_parameters_and_cookies_are_those_that_routes_see(text: str, name: str) -> None:
    request = Request("GET", "/", text, Headers([(b"Cookie", text.encode()), (b"Cookie", b"c=d; a=z")]))
    for place, part in (("query", Part.QUERY), ("cookies", Part.COOKIE)):
        values = Facts(request).values(part, name)
        assert Condition(f"'{name}' in {place}").holds(request) is bool(values)
        wanted = "".join(f"\\U{ord(letter):08x}" for letter in values[0]) if values else ""
        assert Condition(f"{place}['{name}'] == '{wanted}'").holds(request) is True


Known = tuple[str, Any]
"""An expression, and its value for the request of these tests."""


def binary(sign: str, apply: Callable[[Any, Any], Any], of: st.SearchStrategy[Known]) -> st.SearchStrategy[Known]:
    return st.tuples(of, of).map(lambda pair: (f"({pair[0][0]} {sign} {pair[1][0]})", apply(pair[0][1], pair[1][1])))


TEXT: st.SearchStrategy[Known] = st.one_of(
    st.sampled_from([("method", "POST"), ("path", "/orders/7"), ("user", "ada"), ("headers['x-role']", "boss")]),
    st.text(alphabet="abPOST/7", max_size=4).map(lambda text: (f"'{text}'", text)),
)
NUMBER: st.SearchStrategy[Known] = st.one_of(
    st.integers(-20, 20).map(lambda number: (str(number), number)),
    TEXT.map(lambda known: (f"size({known[0]})", len(known[1]))),
)
COMPARE = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
TRUTH: st.SearchStrategy[Known] = st.recursive(
    st.one_of(
        *(binary(sign, apply, of) for sign, apply in COMPARE.items() for of in (TEXT, NUMBER)),
        st.tuples(TEXT, TEXT).map(lambda pair: (f"{pair[0][0]}.contains({pair[1][0]})", pair[1][1] in pair[0][1])),
        st.tuples(TEXT, TEXT).map(
            lambda pair: (f"{pair[0][0]}.startsWith({pair[1][0]})", pair[0][1].startswith(pair[1][1]))
        ),
        st.tuples(TEXT, st.lists(TEXT, min_size=1, max_size=3)).map(
            lambda pair: (
                f"({pair[0][0]} in [{', '.join(text for text, _ in pair[1])}])",
                pair[0][1] in [value for _, value in pair[1]],
            )
        ),
    ),
    lambda inner: st.one_of(
        binary("&&", lambda left, right: left and right, inner),
        binary("||", lambda left, right: left or right, inner),
        inner.map(lambda known: (f"!{known[0]}", not known[1])),
        st.tuples(inner, inner, inner).map(
            lambda three: (
                f"({three[0][0]} ? {three[1][0]} : {three[2][0]})",
                three[1][1] if three[0][1] else three[2][1],
            )
        ),
        st.lists(inner, min_size=1, max_size=4).map(
            lambda several: (f"({' && '.join(text for text, _ in several)})", all(value for _, value in several))
        ),
    ),
    max_leaves=8,
)


@given(TRUTH)
def test_it_is_what_python_would_make_of_it(known: Known) -> None:
    text, value = known
    assert Condition(text).holds(request_of()) is value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("headers['x-role']", "boss"),
        ("user", "ada"),
        ("user.claims['level']", "3"),
        ("route", "orders"),
        ("'a' in headers ? 'yes' : 'no'", "no"),
        ("headers['x-none']", ""),
        ("'the same'", "the same"),
    ],
)
def test_an_expression_is_a_text(text: str, value: str) -> None:
    assert Expression(text).read(request_of()) == value


@pytest.mark.parametrize("text", ["user.roles", "size(user)", "true", "method == 'GET'", "headers"])
def test_what_is_no_text_is_told(text: str) -> None:
    with pytest.raises(ConditionError):
        Expression(text)
