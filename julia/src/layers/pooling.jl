"""
    FirstMaxPool(k; stride, pad)

The largest entry of every window; among equals, the first gets the derivative.

Flux's `MaxPool` looks for the winner with `≈` in its backward pass, so that entries closer than `sqrt(eps)` are mistaken for
each other and the derivative goes to the wrong one (NNlib up to 0.9). This layer keeps the winner's index.
"""
struct FirstMaxPool{N}
    k::NTuple{N,Int}
    stride::NTuple{N,Int}
    pad::NTuple{N,Int}
end
FirstMaxPool(k::NTuple{N,Int}; stride=k, pad=ntuple(_ -> 0, N)) where {N} = FirstMaxPool{N}(k, stride, pad)

(p::FirstMaxPool)(x::AbstractArray) = gather_windows(x, winners(x, p))

"linear indices of the largest entry of every window"
function winners(x::AbstractArray{T,D}, p::FirstMaxPool{N}) where {T,D,N}
    D == N + 2 || throw(DimensionMismatch("max pooling over $N axes got an array of size $(size(x))"))
    space = size(x)[1:N]
    count = (space .+ 2 .* p.pad .- p.k) .÷ p.stride .+ 1
    found = Array{Int}(undef, count..., size(x, N + 1), size(x, N + 2))
    plane = prod(space)
    linear = LinearIndices(space)
    for slice in 0:(size(x, N + 1) * size(x, N + 2) - 1), (o, window) in enumerate(CartesianIndices(count))
        corner = (Tuple(window) .- 1) .* p.stride .- p.pad
        best, winner = typemin(T), 0
        for u in CartesianIndices(p.k)
            at = corner .+ Tuple(u)
            all(1 .<= at .<= space) || continue
            index = slice * plane + linear[at...]
            if winner == 0 || x[index] > best
                best, winner = x[index], index
            end
        end
        found[slice * prod(count) + o] = winner
    end
    return found
end
@non_differentiable winners(::AbstractArray, ::FirstMaxPool)

gather_windows(x::AbstractArray, indices::Array{Int}) = x[indices]

function ChainRulesCore.rrule(::typeof(gather_windows), x::AbstractArray, indices::Array{Int})
    function back(Δ)
        d = unthunk(Δ)
        dx = fill!(similar(x, eltype(d)), 0)
        for (k, index) in enumerate(indices)
            dx[index] += d[k]
        end
        return NoTangent(), dx, NoTangent()
    end
    return x[indices], back
end

function build_layer(::Val{:maxpool}, settings, param)
    return FirstMaxPool(spatial(settings["kernel_size"]); stride=spatial(settings["stride"]),
        pad=spatial(settings["padding"]))
end

function build_layer(::Val{:meanpool}, settings, param)
    return MeanPool(spatial(settings["kernel_size"]); stride=spatial(settings["stride"]),
        pad=spatial(settings["padding"]))
end

build_layer(::Val{:globalmeanpool}, settings, param) = GlobalMeanPool()
