"""The pattern of identifiers that other systems give to vehicles, machines and devices."""

IDENTIFIER = r"[\w-][\w.,:@+()-]*(?: +[\w.,:@+()-]+)*"
"""Letters and digits of any script, and `_ - . , : @ + ( )`; between them, also spaces.

So `MTA NYCT_4551` and `1:0123` are valid, as GTFS has them. Such an identifier is one part of a path (it has no slash
and is no `..`), one part of a URL once it is percent-encoded, and a QuestDB symbol. It has no quote, no control
character, and no space at its ends, where nobody would see it."""
