#!/usr/bin/python3
"""The page in headless Chromium: a running training with a device killed under it, a running federation with a site that
is refused, a run of 100,000 steps, and what an attacker's text in it can do. Needs Debian's chromium, chromium-driver and python3-selenium.

Usage: page_test.py BIN_DIR [--screenshots DIR]     (takes docs' pictures anew)"""

import argparse
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

try:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
except ImportError:
    sys.exit("page_test.py: needs python3-selenium, chromium and chromium-driver: scripts/install_packages.sh test")

FAILURE_SHOWN_S = 2.0
HEAP_BYTES_MAX = 30e6
CLUSTER = """name: home
portal: hub
portal_address: 127.0.0.1
devices:
  - {name: hub, memory_mib: 1024, speed: 0.5}
  - {name: laptop, memory_mib: 512, speed: 0.4}
  - {name: pi, memory_mib: 512, speed: 0.3}
default_link: {mbps: 940, latency_ms: 0.3}
"""


def check(condition, message):
    if not condition:
        raise AssertionError(message)


def wait_for(what, condition, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"waited {seconds} s in vain for {what}")


def browser(profile, dark=False, width=1180, height=900):
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars",
                 "--enable-precise-memory-info", "--js-flags=--expose-gc", f"--user-data-dir={profile}",
                 f"--window-size={width},{height}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(service=Service("/usr/bin/chromedriver"), options=options)
    driver.set_page_load_timeout(20)
    scheme(driver, dark)
    return driver


def scheme(driver, dark):
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia",
                           {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]})


def window(driver, width, height):
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                           {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600})
    time.sleep(0.7)


def text_of(driver, element):
    return driver.execute_script("return document.getElementById(arguments[0]).textContent", element)


def no_complaints(driver):
    said = [entry["message"] for entry in driver.get_log("browser")
            if entry["level"] == "SEVERE" and "ERR_CONNECTION" not in entry["message"]]
    check(not said, f"the browser complains: {said}")


def screenshot(driver, path):
    height = driver.execute_script("return document.documentElement.scrollHeight")
    width = driver.execute_script("return document.documentElement.clientWidth")
    window(driver, width, min(height, 2400))
    driver.save_screenshot(str(path))


def training_with_a_failure(driver, bin_dir, work, screenshots):
    (work / "cluster.yaml").write_text(CLUSTER)
    out = work / "run"
    errors = open(work / "err.txt", "w+")
    train = subprocess.Popen([bin_dir / "ecopipe-train", "--local", "--cluster", work / "cluster.yaml", "--model", "lenet5", "--data",
                              "fashion-mnist", "--data-limit", "1600", "--epochs", "400", "--seed", "1", "--lr", "0.05", "--out", out,
                              "--web", "127.0.0.1:0"], stderr=errors, stdout=subprocess.DEVNULL)
    try:
        said = lambda: (work / "err.txt").read_text()
        url = wait_for("the page's address", lambda: re.search(r"page: (http://\S+)", said()), 30).group(1)
        driver.get(url)
        metrics = out / "metrics.jsonl"
        wait_for("a hundred steps", lambda: metrics.exists() and metrics.read_text().count('"step"') > 100, 120)
        wait_for("the page to show them", lambda: re.search(r"\d+ of 10,000", text_of(driver, "facts")), 5)
        for part in ("cluster", "timeline", "curve-loss"):
            check(driver.execute_script("return document.getElementById(arguments[0]).querySelectorAll('path').length", part) > 0,
                  f"{part} is empty")
        check(driver.execute_script("return document.querySelectorAll('#devices tr').length") == 3, "three devices have a row")
        check("working" in text_of(driver, "devices"), "they work")

        victim = next(int(pid) for pid in os.listdir("/proc") if pid.isdigit() and is_stage(pid, train.pid, "laptop"))
        killed = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        wait_for("the page to show the failure", lambda: "lost" in text_of(driver, "devices") and "failure" in text_of(driver, "events"), 20)
        shown_s = time.monotonic() - killed
        print(f"a killed device is on the page after {shown_s:.2f} s")
        check(shown_s < FAILURE_SHOWN_S, f"expected the failure within {FAILURE_SHOWN_S} s, found {shown_s:.2f}")
        wait_for("the run to go on", lambda: "recovered" in text_of(driver, "events") and text_of(driver, "state") == "running", 30)
        wait_for("an evaluation", lambda: "accuracy" in text_of(driver, "facts"), 60)

        looked = subprocess.run([bin_dir / "ecopipe-train", "status", "--json", "--out", out], check=False,
                                capture_output=True, timeout=20, text=True)
        check(looked.returncode == 0, f"status left with {looked.returncode}: {looked.stderr}{looked.stdout[:500]}; {said()[-1000:]}")
        status = json.loads(looked.stdout)
        check(status["state"] == "running" and status["pid"] == train.pid and status["page"] == url, f"status says {status['text']}")
        check(status["step_age_s"] < 5, f"the last step is {status['step_age_s']} s old")
        no_complaints(driver)
        for name, width, dark in (("page-light", 1180, False), ("page-dark", 1180, True), ("page-phone", 390, True)):
            scheme(driver, dark)
            window(driver, width, 900)
            wide = driver.execute_script("return document.documentElement.scrollWidth")
            check(wide <= width, f"at {width} pixels the page is {wide} wide")
            colours = driver.execute_script("const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]")
            luminance = [sum(int(n) for n in re.findall(r"\d+", colour)[:3]) for colour in colours]
            check((luminance[0] < luminance[1]) == dark, f"{name}: ink and page are {colours}")
            if screenshots:
                screenshot(driver, screenshots / f"{name}.png")
        window(driver, 1180, 900)
        train.send_signal(signal.SIGINT)
        check(train.wait(timeout=60) == 130, "Ctrl-C ends it")
        wait_for("the page to say that it is over", lambda: text_of(driver, "state") in ("ended", "no answer"), 20)
        over = subprocess.run([bin_dir / "ecopipe-train", "status", "--out", out], capture_output=True, text=True, timeout=20)
        check(over.returncode == 0 and "ended: " in over.stdout, f"status says {over.stdout}")
    finally:
        if train.poll() is None:
            train.kill()
        train.wait()


def is_stage(pid, parent, device):
    try:
        arguments = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return int(stat.rsplit(")", 1)[1].split()[1]) == parent and b"--name" in arguments and \
        arguments[arguments.index(b"--name") + 1] == device.encode()


def long_run(driver, bin_dir):
    fixture = subprocess.Popen([bin_dir / "page_fixture", "100000"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        url = fixture.stdout.readline().strip()
        driver.get(url)
        wait_for("the page to show them", lambda: "100,000 of" in text_of(driver, "facts"), 20)
        document = urllib.request.urlopen(url + "view.json", timeout=10).read()
        peak = 0
        for _ in range(60):  # drawn anew each half second, as beside a run
            fixture.stdin.write("\n")
            fixture.stdin.flush()
            time.sleep(0.5)
            peak = max(peak, heap(driver))
        driver.execute_script("gc()")
        rest = heap(driver)
        nodes = driver.execute_script("return document.querySelectorAll('*').length")
        resident = int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{fixture.pid}/status").read_text()).group(1)) / 1e3
        print(f"100,000 steps: page's JS heap {peak / 1e6:.1f} MB at most, {rest / 1e6:.1f} MB at rest, {nodes} elements; "
              f"document {len(document) / 1e3:.0f} kB; server's whole process {resident:.1f} MB")
        check(peak < HEAP_BYTES_MAX, f"expected under {HEAP_BYTES_MAX / 1e6} MB, found {peak / 1e6:.1f}")
        check(resident < 30, f"the server's memory is {resident} MB")
        check(nodes < 5000, f"{nodes} elements")
        no_complaints(driver)
    finally:
        fixture.stdin.close()
        check(fixture.wait(timeout=10) == 0, "the fixture ends with its input")


def running_federation(driver, bin_dir, work, screenshots):
    """A server and three sites, one of which trains so fast that its updates are refused."""
    (work / "server.yaml").write_text("strategy: {name: eco-fl, groups: 2, alpha: 0.6}\nclient: {epochs: 1, batch: 32}\n"
                                      "limits: {norm_max: 3, quarantine_after: 1}\n")
    state = work / "federation"
    processes = []

    def start(program, log, *arguments):
        errors = open(work / f"{log}.txt", "w")
        processes.append(subprocess.Popen([bin_dir / program, *map(str, arguments)], stderr=errors, stdout=subprocess.DEVNULL))
        return processes[-1]

    said = lambda: (work / "server.txt").read_text()
    refused = subprocess.run([bin_dir / "ecopipe-fl-server", "--bind", "tcp://127.0.0.1:0", "--model", "lenet5", "--state", work / "refused",
                              "--web", "0.0.0.0:0"], capture_output=True, text=True, timeout=60)
    check(refused.returncode == 2 and "needs --insecure" in refused.stderr, f"a page for everybody: {refused.stderr}")
    try:
        server = start("ecopipe-fl-server", "server", "--bind", "tcp://127.0.0.1:0", "--model", "lenet5", "--state", state, "--rounds", 0,
                       "--min-clusters", 2, "--config", work / "server.yaml", "--eval-data", "fashion-mnist", "--web", "127.0.0.1:0",
                       "--peer-timeout-s", 3)
        url = wait_for("the page's address", lambda: re.search(r"page: (http://\S+)", said()), 30).group(1)
        portal = wait_for("the server's address", lambda: re.search(r"listening on (tcp://[\d.:]+)", said()), 30).group(1)
        driver.get(url)
        wait_for("an empty federation", lambda: text_of(driver, "state") == "running", 10)
        for site, classes, lr in (("north", "0,1,2,3,4", 0.01), ("south", "5,6,7,8,9", 0.01), ("reckless", "0,1,2,3,4,5", 0.2)):
            start("ecopipe-train", site, "--federated", portal, "--cluster-name", site, "--single", "--model", "lenet5", "--data",
                  "fashion-mnist", "--classes", classes, "--data-limit", 640, "--lr", lr, "--out", work / site, "--quiet")
        wait_for("six rounds", lambda: re.search(r"round(\d+)", text_of(driver, "facts")) and driver.execute_script(
            "return document.querySelectorAll('#rounds tr').length") >= 6, 90)
        wait_for("the rejections", lambda: "reckless: its change has norm" in text_of(driver, "rejections"), 30)
        wait_for("the quarantine", lambda: "reckless is in quarantine" in text_of(driver, "events"), 30)
        for part, expected in (("sites", "north"), ("sites", "south"), ("sites", "quarantined"), ("groups", "group 0"), ("facts", "eco-fl"),
                               ("facts", "accuracy"), ("events", "north joined")):
            check(expected in text_of(driver, part), f"{part}: expected {expected}, found {text_of(driver, part)}")
        check(driver.execute_script("return document.querySelectorAll('#curve-accuracy path, #curve-loss path').length") == 2, "two curves")
        no_complaints(driver)
        if screenshots:
            window(driver, 1180, 900)
            screenshot(driver, screenshots / "page-federation.png")
            window(driver, 1180, 900)
        left = time.monotonic()
        processes[2].terminate()
        wait_for("a site that left", lambda: "south is gone" in text_of(driver, "events"), 30)
        print(f"a site that left is on the page after {time.monotonic() - left:.2f} s")
        server.terminate()
        check(server.wait(timeout=60) == 143, "a signal ends the server, its page too")
    finally:
        for process in processes:
            if process.poll() is None:
                process.terminate()
        for process in processes:
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()


def federation(driver, bin_dir):
    """What a site calls itself, or is refused for, is text and stays text."""
    fixture = subprocess.Popen([bin_dir / "page_fixture", "federation"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        driver.get(fixture.stdout.readline().strip())
        wait_for("the rounds", lambda: "12 of 20" in text_of(driver, "facts"), 10)
        check("<b id=planted>east</b>" in text_of(driver, "sites"), "a site's name stands as it is")
        check("onerror=alert(1)" in text_of(driver, "rejections"), "a rejection's reason stands as it is")
        check(driver.execute_script("return document.querySelectorAll('#planted, main img').length") == 0, "nothing of it is a tag")
        for part, said in (("groups", "drop-out"), ("groups", "group 1"), ("rounds", "3,000"), ("events", "south: from group 1 to drop-out")):
            check(said in text_of(driver, part), f"{part}: expected {said}, found {text_of(driver, part)}")
        check(driver.execute_script("return document.querySelectorAll('#curve-accuracy path, #curve-loss path').length") == 2, "two curves")
        no_complaints(driver)
    finally:
        fixture.stdin.close()
        check(fixture.wait(timeout=10) == 0, "the fixture ends with its input")


def heap(driver):
    metrics = driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return next(metric["value"] for metric in metrics if metric["name"] == "JSHeapUsedSize")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bin_dir", type=pathlib.Path)
    parser.add_argument("--screenshots", type=pathlib.Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        work = pathlib.Path(directory)
        driver = browser(work / "profile")
        try:
            driver.execute_cdp_cmd("Performance.enable", {})
            training_with_a_failure(driver, given.bin_dir.resolve(), work, given.screenshots)
            running_federation(driver, given.bin_dir.resolve(), work, given.screenshots)
            federation(driver, given.bin_dir.resolve())
            long_run(driver, given.bin_dir.resolve())
        finally:
            driver.quit()
    print("page_test.py: passed")


if __name__ == "__main__":
    main()
