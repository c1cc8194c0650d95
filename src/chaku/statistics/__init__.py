"""Estimates with error bars and tests for evaluation: numpy and the standard library, numbers in, numbers out.

Rows of one cluster (such as the answers to one question) may depend on each other. Errors are cluster-robust, and
intervals use Student's t with C - 1 degrees of freedom for C clusters.
"""
