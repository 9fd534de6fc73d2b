# What comes back to the parameters of one node from every sample by itself.

"""
    samples_pullback(Val(kind), batch, attributes, varies, inputs...) -> back

The function from a cotangent of the value of a node to those of the inputs that are the same for all samples, for every sample by
itself: (length(input), n), or a thunk of it; `nothing` for one that has none. The samples are along the last axis of the value, and
of the inputs for which `varies` says so. Without a method of its own, a node takes its pullback for one sample after the other.
"""
function samples_pullback(kind::Val, batch::Batch{T}, a, varies, inputs...) where {T}
    backs = map(1:(batch.n)) do i
        own = map((x, apart) -> apart ? sample(x, i) : x, inputs, Tuple(varies))
        last(node_pullback(kind, Batch{T}(1), a, own...))
    end
    function back(d)
        pulled = [backs[i](sample(d, i)) for i in 1:(batch.n)]
        return map(position -> @thunk(side_by_side([unthunk(found[position]) for found in pulled])), eachindex(inputs))
    end
    return back
end

side_by_side(found) = any(isnothing, found) ? nothing : reduce(hcat, map(vec, found))

function samples_pullback(kind::Norm, batch::Batch{T}, a, varies, x::Array{T}, others::Array{T}...) where {T<:AbstractFloat}
    statistics = others[1:(before_scale(kind) - 1)]
    y, _ = standard(kind, a, x, statistics...)
    return d -> (map(_ -> nothing, (x, statistics...))..., @thunk(shift_gradients(kind, a, d .* y)), @thunk(shift_gradients(kind, a, d)))
end

function samples_pullback(kind::Pairwise, batch::Batch, a, varies, x, y)
    "the size of an input with its own axis for every sample"
    apart(x, d) = ntuple(k -> k == ndims(d) ? batch.n : size(x, k), ndims(d))
    back(d) = map((part, x) -> @thunk(reshape(unbroadcast(part, apart(x, d)), length(x), :)), backs(kind, d, x, y), (x, y))
    return back
end

function samples_pullback(::Val{:embedding}, batch::Batch, a, varies, table, tokens)
    of_each = reshape(tokens, :, batch.n)
    function back(d)
        found = fill!(similar(d, length(table), batch.n), 0)
        rows, errors = reshape(found, size(table)..., batch.n), reshape(d, size(table, 1), :, batch.n)
        for i in axes(of_each, 2), t in axes(of_each, 1)
            of_each[t, i] == a.padding || (view(rows, :, of_each[t, i] + 1, i) .+= view(errors, :, t, i))
        end
        return found, nothing
    end
    return back
end
