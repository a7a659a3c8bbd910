import dataclasses

import pytest

from rerank_cli.benchmarking.analysis import Times, advise, estimate, limit_of, ratio_error

BUSY = Times(wall=10, device=9.8, rows_wait=0.1, output_wait=0.1, input_wait=6, tokenize=3, read=1, write=0.5)


def times(**changes):
    return dataclasses.replace(BUSY, **changes)


def test_a_device_that_hardly_waits_is_the_limit():
    found = limit_of(BUSY, "cpu")
    assert found.what == "device"
    assert found.sentence == "the device (cpu): it was busy 98% of the time"


def test_a_device_that_waits_for_token_ids_is_limited_by_the_tokenizer():
    found = limit_of(times(device=4, rows_wait=6, input_wait=0.5, tokenize=9), "cuda:0")
    assert found.what == "tokenizer"
    assert found.sentence.startswith("the tokenizer: the device waited 60% of the time")
    assert "more CPU cores would help" in found.sentence


def test_a_tokenizer_that_waits_for_records_puts_the_limit_on_reading():
    found = limit_of(times(device=4, rows_wait=6, input_wait=7, tokenize=2, read=9), "cuda:0")
    assert found.what == "reading"
    assert "40%" not in found.sentence
    assert "60%" in found.sentence


def test_a_device_that_waits_for_its_output_is_limited_by_writing():
    found = limit_of(times(device=5, rows_wait=1, output_wait=4, write=9), "cuda:0")
    assert found.what == "writing"


def test_seconds_of_a_single_part_are_all_work():
    assert times(wall=2.0, device=2.0).busy == 1.0
    assert times(wall=0.0, device=0.0).busy == 0.0


def test_a_size_that_is_faster_beyond_the_noise_is_recommended():
    found = advise({1024: [1.0, 1.0, 1.0], 2048: [1.2, 1.21, 1.19], 4096: [1.1, 1.1, 1.1]}, default=2048)
    assert found.size == found.quickest == 1024
    assert found.gain == pytest.approx(0.2)
    assert found.noise == pytest.approx(0.02 / 1.2)


def test_a_size_that_is_faster_within_the_noise_is_not_recommended():
    found = advise({1024: [1.0, 1.0, 1.0], 2048: [0.9, 1.3, 1.1]}, default=2048)
    assert found.gain == pytest.approx(0.1)
    assert found.size is None


def test_a_gain_that_is_not_worth_a_flag_is_not_recommended():
    assert advise({1024: [1.0, 1.0, 1.0], 2048: [1.01, 1.01, 1.01]}, default=2048).size is None


def test_one_slow_round_does_not_decide():
    found = advise({1024: [1.0, 9.0, 1.0], 2048: [1.1, 1.1, 1.1]}, default=2048)
    assert found.medians[1024] == 1.0
    assert found.size == 1024


def test_gains_are_told_round_by_round_so_that_a_machine_that_slows_down_favours_none():
    found = advise({1024: [1.0, 2.0, 3.0], 2048: [1.0, 2.0, 3.0]}, default=2048)
    assert found.gain == pytest.approx(0.0)
    assert found.size is None


def whole(**changes):
    figures = {
        "total_bytes": 1_000_000,
        "text": [(100, 90), (100, 90), (100, 90), (100, 90)],
        "characters": 360,
        "pairs": 4,
        "tokens": 72,
        "pace": [(0.5, 36)] * 3,
    }
    return estimate(**{**figures, **changes})


def test_the_whole_input_takes_as_long_as_its_text_at_the_pace_of_the_sample():
    found = whole()
    assert found.seconds == pytest.approx(900_000 / 5 / 72)
    assert found.pairs == 10_000
    assert found.error == 0.0
    assert not found.from_beginning


def test_candidates_left_out_of_the_sample_count_with_their_text():
    assert whole(characters=180, pairs=2, tokens=36).seconds == pytest.approx(whole().seconds)
    assert whole(characters=180, pairs=2, tokens=36).pairs == 10_000


def test_the_error_grows_with_the_spread_of_text_and_of_pace():
    uneven_text = whole(text=[(100, 60), (100, 120), (100, 60), (100, 120)])
    uneven_pace = whole(pace=[(0.3, 36), (0.5, 36), (0.7, 36)])
    assert uneven_text.seconds == pytest.approx(whole().seconds)
    assert uneven_text.error == pytest.approx(2 * ratio_error([(100, 60), (100, 120)] * 2))
    assert uneven_pace.error == pytest.approx(2 * ratio_error([(36, 0.3), (36, 0.5), (36, 0.7)]))


def test_a_pace_of_one_part_or_two_has_no_error_to_tell():
    assert whole(pace=[(0.5, 36)]).error is None
    assert whole(pace=[(0.5, 36)] * 2).error is None


def test_a_sample_from_the_beginning_says_so_unless_it_is_all_there_is():
    assert whole(text=[(400, 360)]).from_beginning
    assert not whole(text=[(400, 360)], total_bytes=400, complete=True).from_beginning


def test_the_error_of_a_ratio_is_that_of_its_residuals():
    # Ratio 2; residuals 1, -1, 1, -1: sqrt(4 · 4 / 3) / 80
    assert ratio_error([(10, 21), (10, 19), (10, 21), (10, 19)]) == pytest.approx((16 / 3) ** 0.5 / 80)
    assert ratio_error([(10, 20), (20, 40), (5, 10)]) == 0.0
    assert ratio_error([(10, 21)]) == 0.0
