"""An S3 server in the process of the test."""

from contextlib import contextmanager


@contextmanager
def s3_server(monkeypatch):
    """A server that the clients of this process and its children are sent to, with a bucket called `bucket`."""
    import boto3
    import s3fs
    from moto.server import ThreadedMotoServer

    for name in ('AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY'):
        monkeypatch.setenv(name, 'testing')
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv('AWS_ENDPOINT_URL', f'http://{host}:{port}')
        monkeypatch.setenv('AWS_DEFAULT_REGION', 'us-east-1')
        s3fs.S3FileSystem.clear_instance_cache()
        boto3.client('s3').create_bucket(Bucket='bucket')
        yield server
    finally:
        server.stop()
