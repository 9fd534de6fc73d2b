# For bridge.py: the work of a kernel by tiles, as Python has it done, without Python.
module BridgeBenchmark

using UDLBridge: UDLBridge

"""
    native(chain, X, tile, outputs)

Seconds for the factors of all blocks of `tile` samples and for all tiles of the lower triangle, one after the other.
"""
function native(chain, X, tile::Integer, outputs::Integer)
    return @elapsed begin
        r = UDLBridge.reduction(outputs, size(UDLBridge.outputs(chain, UDLBridge.sample(X, 1)), 1))
        blocks = collect(Iterators.partition(axes(X, 2), tile))
        kept = [UDLBridge.factors(chain, X[:, block], r, :structured) for block in blocks]
        target = Matrix{eltype(X)}(undef, tile, tile)
        for (i, left) in enumerate(kept), j in 1:i
            UDLBridge.rectangle!(target, r, left, 1:tile, kept[j], 1:tile; lower=i == j)
        end
    end
end

end
