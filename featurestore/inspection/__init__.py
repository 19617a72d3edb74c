"""Seeing into stores: what their vectors are like, how two stores differ, what a corpus lacks in one."""
