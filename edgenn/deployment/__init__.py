"""What is done to devices over SSH: releases are carried there, switched to, watched and taken back.

Imports no TensorFlow, and pyinfra (with its gevent) only while a deploy runs.
"""
