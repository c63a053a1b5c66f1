"""`when:` beside a policy says for which requests it is there; for all others it is skipped, on the way in and out.

```yaml
policies:
  - security-headers: {hsts: max-age=31536000}
    when: "scheme == 'https' && !(address in ['10.0.0.0/8', '::1'])"
services: {orders: "http://127.0.0.1:9002"}
routes:
  - path: /orders/{id}
    service: orders
    policies:
      - request-size: 1MiB
        when: method in ['POST', 'PUT'] && headers['x-bulk'] == '' && captures['id'] != 'import'
```

It is decided once for each request, on the way in, when the policy's turn comes: what an earlier policy has found out,
such as the user, or has changed, counts. Expressions are a subset of [CEL](https://cel.dev), and checked when the file
is loaded, types included. They can speak of:

==================== ===========================================================================================
`method`             the method, such as `'GET'`
`path`               the path in its [normal form](#the-path-of-a-request), without the query
`host`               the host that was asked for, in lower case, without a port
`scheme`             `'http'` or `'https'`
`query['page']`      the first query parameter of that name, decoded
`headers['x-debug']` the first header of that name, in whatever case it is written
`cookies['group']`   the first cookie of that name
`captures['id']`     what the route's path has captured under that name, decoded
`address`            the client's IP address
`route`              the name of the route
`user`               the name of the user that a policy has authenticated
`user.roles`         the user's roles, a list
`user.scopes`        the scopes that the user has granted, a list
`user.permissions`   what the user may do, a list
`user.groups`        the user's groups, a list
`user.kind`          what has found out who it is: the name of a policy, such as `'jwt'`
`user.consumer`      which consumer it is
`user.claims['org']` what else is known of the user: a text as it is, a number or truth value as JSON writes it
==================== ===========================================================================================

What a request does not have is the empty text, or an empty list: `user == ''` is someone whom nobody has
authenticated. `'x-debug' in headers` tells an empty header from none; so do `query`, `cookies`, `captures` and
`user.claims`.

Names are as unique as those who give them: where there is more than one way to be known, somebody whose token says
`ada` and the consumer `ada` have one name. `user.consumer == 'ada'` is the consumer alone, by whichever policy; with
`user.kind == 'jwt'`, `user == 'ada'` is the one of the token alone.

==================================== ===========================================================================
`==` `!=` `<` `<=` `>` `>=`          two texts or two numbers; `==` and `!=` two truth values as well
`&&` `||` `!` `a ? b : c`            and, or, not, and a choice; the right side is looked at only where it matters
`method in ['GET', 'HEAD']`          whether a list has it
`address in '10.0.0.0/8'`            whether the address is of a network, or of one in a list
`path.startsWith('/a')`              `endsWith` and `contains` likewise
`path.matches('^/v[12]/')`           whether a regular expression matches somewhere; `^` and `$` are the text's ends
`size(user.roles)`                   how many characters a text has, or how many values a list
==================================== ===========================================================================

Texts stand in single or double quotes, with the escapes of CEL (`\\'`, `\\n`, `\\u00e9`); `r'\\d'` has none. Numbers
are whole. `//` begins a comment that goes to the end of its line. An expression has at most 4096 characters, and is
nested at most 32 deep.

Regular expressions are the part of RE2's that Python has, too: no look-around and no back-references, and `\\d`,
`\\w` and `\\s` are ASCII. Clients choose what is matched, and Python's matcher can be made to try again and again, so
what could take long is refused at load: a repetition within a repetition such as `(a+)+`, or too many `*`, `+` and `?`
in a row. Others are tried on texts of up to 8192 characters, or as many fewer as a million tries are enough for:
1024 for `foo.*bar`, which may begin anywhere; 8192 for `^foo.*bar`. A request with a longer text is answered 431:
it is not let past a policy unseen.
"""

from portico.policy.condition.condition import Condition, Expression
from portico.policy.condition.error import ConditionError

__all__ = ["Condition", "ConditionError", "Expression"]
