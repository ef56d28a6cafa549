"""The Python agent of the end-to-end tests: it has work for a while, and then none. No lifecycle-manager runs it."""

import asyncio
import logging

from dexorder.lifecycle_manager import LifecycleManager

logging.basicConfig(level=logging.INFO)


async def main():
    manager = LifecycleManager(idle_timeout_minutes=0.2)
    await manager.start()
    manager.add_trigger("work")
    await asyncio.sleep(5)
    manager.remove_trigger("work")
    await asyncio.sleep(3600)


asyncio.run(main())
