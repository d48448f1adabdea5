"""A queue of moto's SQS into which moto's S3 puts the notifications of a bucket, as AWS does."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote_plus

import boto3

from tests.support.servers.s3 import S3Server

_names = itertools.count()


class NoticeQueue:
    """A new queue, connected to a bucket.

    Args:
        s3: The server with the bucket.
        prefix: Only objects with this prefix are notified.
    """

    def __init__(self, s3: S3Server, prefix: str = "") -> None:
        env = s3.env
        session = boto3.Session(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], region_name=env["AWS_REGION"])
        self.name = f"notices-{os.getpid()}-{next(_names)}"
        self.bucket = s3.bucket
        self.client: Any = session.client("sqs", endpoint_url=env["AWS_ENDPOINT_URL"])
        self.url: str = self.client.create_queue(QueueName=self.name)["QueueUrl"]
        found = self.client.get_queue_attributes(QueueUrl=self.url, AttributeNames=["QueueArn"])
        configuration: dict[str, Any] = {
            "QueueArn": found["Attributes"]["QueueArn"],
            "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"],
        }
        if prefix:
            configuration["Filter"] = {"Key": {"FilterRules": [{"Name": "prefix", "Value": prefix}]}}
        buckets: Any = session.client("s3", endpoint_url=env["AWS_ENDPOINT_URL"])
        buckets.put_bucket_notification_configuration(
            Bucket=s3.bucket, NotificationConfiguration={"QueueConfigurations": [configuration]}
        )

    @property
    def address(self) -> str:
        """The setting `events`."""
        return f"sqs://{self.name}"

    def send(self, *bodies: str) -> None:
        """Put messages into the queue."""
        for body in bodies:
            self.client.send_message(QueueUrl=self.url, MessageBody=body)

    def notice(self, key: str, event: str = "ObjectCreated:Put", **of_object: str) -> str:
        """The message of S3 about an object."""
        return s3_message(self.bucket, key, event, **of_object)

    def bodies(self) -> list[str]:
        """What waits in the queue, removed from it."""
        found: list[str] = []
        while messages := self.client.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10).get("Messages"):
            for message in messages:
                found.append(message["Body"])
                self.client.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])
        return found

    def counts(self) -> tuple[int, int]:
        """The number of messages that wait, and of those that are hidden."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.client.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)["Attributes"]
        return int(found[names[0]]), int(found[names[1]])

    def show_hidden(self, receipts: Iterable[str]) -> None:
        """Let hidden messages appear again, as they do after a minute."""
        for receipt in receipts:
            self.client.change_message_visibility(QueueUrl=self.url, ReceiptHandle=receipt, VisibilityTimeout=0)


def s3_message(bucket: str, key: str, event: str = "ObjectCreated:Put", **of_object: str) -> str:
    """The message of S3 about an object."""
    record = {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "eventName": event,
        "s3": {"bucket": {"name": bucket}, "object": {"key": quote_plus(key), **of_object}},
    }
    return json.dumps({"Records": [record]})


def in_sns(message: str) -> str:
    """The message in the envelope of SNS."""
    return json.dumps({"Type": "Notification", "MessageId": "1", "TopicArn": "arn:aws:sns:x", "Message": message})


def event_bridge_message(bucket: str, key: str) -> str:
    """The message of EventBridge about an object."""
    detail = {"version": "0", "bucket": {"name": bucket}, "object": {"key": key, "size": 5, "sequencer": "617f"}}
    return json.dumps({"version": "0", "detail-type": "Object Created", "source": "aws.s3", "detail": detail})


TEST_EVENT = json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "any", "RequestId": "1"})
