"""The set-up that the page on events prints works as it is printed, on an emulator of AWS."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import boto3
import pytest

from ingest_pipeline.events.notices import ObjectNotice, read_notices
from ingest_pipeline.events.queue import EventQueue
from tests.support.servers.s3 import S3Server

pytestmark = pytest.mark.promise("events")

PAGE = (Path(__file__).parents[3] / "docs" / "how-to" / "events.md").read_text()
QUEUE = "arn:aws:sqs:eu-west-1:123456789012:handbook"


def test_the_printed_documents_connect_a_queue_to_a_bucket(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-west-1")  # the url of an emulator names no region
    policy, notification, rights = (json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL))
    assert re.findall(r'"Resource": "(.*)"', PAGE) == [QUEUE, QUEUE]
    clients: list[Any] = [boto3.client(name, region_name="eu-west-1") for name in ("sqs", "s3", "iam")]
    sqs, buckets, iam = clients
    buckets.create_bucket(Bucket="company", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    company = copy.copy(s3)
    company.bucket = "company"
    url = sqs.create_queue(QueueName="handbook", Attributes={"Policy": json.dumps(policy)})["QueueUrl"]
    buckets.put_bucket_notification_configuration(Bucket="company", NotificationConfiguration=notification)
    iam.create_policy(PolicyName="handbook", PolicyDocument=json.dumps(rights))
    company.put("elsewhere/a.txt", b"text")
    company.put("handbook/a.txt", b"text")
    queue = EventQueue(url)
    messages = queue.receive(0)
    assert [read_notices(one.body) for one in messages] == [[], [ObjectNotice("company", "handbook/a.txt")]]
    queue.delete(messages)
    address = re.search(r"events: (\S+)", PAGE)
    assert address is not None
    assert url.endswith(address[1].partition("amazonaws.com")[2])
