"""Runs all cases against one daemon; see scripts/test-http."""
import shutil
import sys
import threading
import time
import traceback

import cases_http1
import cases_http2
import cases_http2_endpoints
import cases_leaks
from door import SHORT, Door
from peers import Http1, Http2, shows

# Of a case; the longest takes 12 s on a machine that does nothing else.
LIMIT = 40


class World:
    def __init__(self, tandem):
        self.door = door = Door(tandem)
        self.old, self.new = Http1(), Http2()
        self.narrow = Http2()
        self.narrow.window, self.narrow.streams_max = 16, 2
        self.secret = Http2(shows(door.work, ["h2"]))
        self.both = Http1(shows(door.work, ["http/1.1"]))
        http2 = 'upstream_protocol = "http2"\n'
        quiet = "ejection = false\nhealth = false\n"
        tls = f'upstream_tls = {{ ca = "{door.work}/shop.crt", server_name = "shop.example" }}\n'
        other = tls.replace("shop.example", "other.example")
        certificates = (f'certificates = [{{ certificate = "{door.work}/shop.crt", '
                        f'key = "{door.work}/shop.key" }}]\n')
        door.service("old", [self.old.port], quiet)
        door.service("short", [self.old.port], quiet + SHORT)
        door.service("new", [self.new.port], quiet + http2)
        door.service("newshort", [self.new.port], quiet + http2 + SHORT)
        door.service("narrow", [self.narrow.port], quiet + http2)
        door.service("secret", [self.secret.port], quiet + http2 + tls + certificates)
        door.service("secretold", [self.both.port], quiet + tls + certificates)
        door.service("stranger", [self.secret.port],
                     quiet + http2 + other + 'hold_max = "500ms"\n')
        door.start()


def run(case, world):
    begun, failed = time.monotonic(), []

    def body():
        try:
            case(world)
        except BaseException:
            failed.append(traceback.format_exc())

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    thread.join(LIMIT)
    if thread.is_alive():
        failed.append(f"it did not end within {LIMIT} s\n")
    if not failed and not world.door.lives() and case not in cases_http2.LAST:
        failed.append("the daemon ended\n")
    name = case.__name__.replace("_", " ")
    took = (time.monotonic() - begun) * 1000
    print(f"{'FAILED' if failed else 'ok':6} {took:6.0f} ms  {name}", flush=True)
    for text in failed:
        print("".join(f"       | {line}\n" for line in text.splitlines()), flush=True)
    return not failed


def main():
    tandem, only = sys.argv[1], sys.argv[2]
    cases = [*cases_http1.CASES, *cases_http2.CASES, *cases_http2_endpoints.CASES,
             *cases_leaks.CASES, *cases_http2.LAST]
    begun = time.monotonic()
    world = World(tandem)
    try:
        good = [run(case, world) for case in cases if only in case.__name__.replace("_", " ")]
    finally:
        world.door.end()
    print(f"{sum(good)} of {len(good)} cases are good, {time.monotonic() - begun:.0f} s")
    if not all(good) or not good:
        print(f"the end of the daemon's log:\n{world.door.tail()}")
        sys.exit(1)
    shutil.rmtree(world.door.work)


if __name__ == "__main__":
    main()
