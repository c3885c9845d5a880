"""Whoever was bad is gone, with all that it cost."""
import concurrent.futures
import os
import time

import cases_http1 as http1
import cases_http2 as http2
import cases_http2_endpoints as endpoints
from door import wait

ROUNDS = 5
# Thirty times what was measured, and a few bytes for each of some 200,000 bad requests and frames.
GROWTH_MAX_KB = 2_000
QUICK = [
    http1.chunks_that_two_readers_could_read_in_two_ways_are_refused,
    http1.heads_that_two_readers_could_read_in_two_ways_are_refused,
    http1.a_client_that_closes_its_side_frees_the_endpoint,
    http1.floods_of_fields_are_refused,
    http2.a_reset_frees_the_endpoint,
    http2.what_breaks_off_is_a_reset,
    http2.what_would_be_another_request_to_http1_is_none,
    http2.heads_that_are_too_long_are_refused,
    http2.what_is_sent_ahead_of_a_refused_websocket_is_no_request,
    http2.floods_of_pings_end_their_connection,
    http2.floods_of_settings_end_their_connection,
    http2.floods_of_priorities_end_their_connection,
    http2.floods_of_continuations_end_their_connection,
    http2.floods_of_empty_data_end_their_connection,
    http2.rapid_resets_end_their_connection,
    http2.frames_out_of_order_are_answered_by_goaway,
    endpoints.what_http2_has_no_words_for_is_refused_at_once,
    endpoints.endpoints_that_break_the_rules_are_502,
    endpoints.a_flood_of_an_endpoint_ends_its_connection,
    endpoints.a_client_that_leaves_resets_its_stream_only,
]
# Of a service of their own each, or of nobody else's business: side by side.
SLOW = [
    http1.a_head_that_drips_is_waited_for_only_so_long,
    http1.half_a_preface_is_waited_for_only_so_long,
    http1.a_body_that_stops_is_waited_for_only_so_long,
    http1.an_endpoint_that_never_answers_is_504,
    http2.an_endpoint_that_never_answers_is_504_on_its_stream_only,
    http2.who_is_idle_gets_goaway,
    endpoints.an_endpoint_of_http2_that_never_answers_is_504_and_told,
]


def descriptors(w):
    return len(os.listdir(f"/proc/{w.door.process.pid}/fd"))


def rest(w):
    """How many descriptors it has once that does not change."""
    seen = [descriptors(w), time.monotonic()]

    def is_so():
        now = descriptors(w)
        if now != seen[0]:
            seen[:] = now, time.monotonic()
        return time.monotonic() - seen[1] > 0.5

    wait(is_so, "it comes to rest")
    return seen[0]


def quick_ones(w):
    for case in QUICK:
        case(w)


def bad_clients_leave_nothing_behind(w):
    # All of them were there before; what is kept for the next one is there.
    quick_ones(w)
    before, before_kb = rest(w), w.door.rss_kb()
    for _ in range(ROUNDS):
        quick_ones(w)
    with concurrent.futures.ThreadPoolExecutor(len(SLOW)) as all_at_once:
        for done in [all_at_once.submit(case, w) for case in SLOW]:
            done.result()
    after, after_kb = rest(w), w.door.rss_kb()
    print(f"       | {before} descriptors and {before_kb} kB, then {after} and {after_kb} kB")
    # A connection to an endpoint may be kept or not; of clients none is left.
    assert after <= before + 4, (before, after)
    assert after_kb <= before_kb + GROWTH_MAX_KB, (before_kb, after_kb)


CASES = [bad_clients_leave_nothing_behind]
