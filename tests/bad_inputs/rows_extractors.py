"""Feature extractors that a flag, a setting or a config names."""

from __future__ import annotations

from bad_row import Row, command, setting

ROWS: list[Row] = [
    setting("extractor-unknown", "protocol.extractor=nosuch", ["nosuch", "digits"], home="digits"),
    setting("extractor-no-module", "protocol.extractor=no_such_module:f", ["no_such_module"], home="digits"),
    setting("extractor-no-attribute", "protocol.extractor=math:nosuch", ["math", "nosuch"], home="digits"),
    setting("extractor-exit", "protocol.extractor=sys:exit", ["sys:exit"], home="digits"),
    setting("extractor-input", "protocol.extractor=builtins:input", ["builtins:input"], home="digits"),
    setting("extractor-shell", "protocol.extractor=os:system", ["os:system"], home="digits"),
    setting("extractor-text", "protocol.extractor=a b", ["protocol.extractor = 'a b'"], home="digits"),
    command("evaluate-judge-unknown", "evaluate {study}/0 --extractor judge.0123456789ab",
            says="no such judge in {home}/judges", home="study"),
    command("evaluate-judge-of-pictures", "evaluate --images {dir} --reference digits --extractor judge.0123456789ab",
            says="no such judge in {home}/judges", home="digits"),
    command("evaluate-extractor-exit", "evaluate {study}/0 --extractor sys:exit", says="sys:exit", home="study"),
    command("evaluate-extractor-shell", "evaluate {study}/0 --extractor os:system", says="os:system", home="study"),
]  # fmt: skip
