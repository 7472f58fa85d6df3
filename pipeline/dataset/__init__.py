"""Tiny ImageNet, or the sample in its layout: found, labelled, split, decoded and built.

May import io and what that may."""
