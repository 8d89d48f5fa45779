"""Placement groups that outlive the tuner that created them.

Ray documents that a placement group shares the fate of its creator, but removes it only when the creator's driver has ended,
too; the scheduler's has not. A tuner that was ended while it waited for a node would go on asking the autoscaler for one.
"""

from __future__ import annotations

from ray import ActorID, PlacementGroupID
from ray._private.state import state
from ray.core.generated.gcs_pb2 import ActorTableData, PlacementGroupTableData
from ray.util import remove_placement_group
from ray.util.placement_group import PlacementGroup

from services.runtime import NAMESPACE


def remove_orphans() -> int:
    """Remove our namespace's groups whose creating actor is dead; return how many there were."""
    removed = 0
    accessor = state._connect_and_get_accessor()  # Ray's public table does not tell a group's creator
    for row in accessor.get_placement_group_table():
        group = PlacementGroupTableData.FromString(row)
        if group.state == PlacementGroupTableData.REMOVED or group.is_detached or group.ray_namespace != NAMESPACE:
            continue
        # The row's own `creator_actor_dead` stays false where the request came later than the creator's death.
        creator = accessor.get_actor_info(ActorID(group.creator_actor_id))
        if creator is None or ActorTableData.FromString(creator).state == ActorTableData.DEAD:
            remove_placement_group(PlacementGroup(PlacementGroupID(group.placement_group_id)))
            removed += 1
    return removed
